"""Suite files: how a cell's run is put together, and what is refused before anything runs."""

import pytest

from fedloom.base import config
from fedloom.base.errors import ConfigError, MissingFileError, RunError, UnknownNameError
from fedloom.benchmark.suite import Suite, cells_of, check_directory, load_suite, load_suite_directory, merged
from support.paths import ROOT

TEXT = """
title = "small"
seeds = [3, 4]
seed_keys = ["seed", "data.seed"]

[common]
rounds = 2
local = { lr = 1e-2, steps = 3 }
rule = { name = "prox", mu = 0.5 }

[data.a]
data = { n_clients = 4 }

[data.b]
data = { n_clients = 6 }
local = { lr = 2e-2 }

[methods.fedavg]
rule = { name = "plain" }

[methods.fedprox]
local = { lr = 3e-2 }
on.b = { local = { steps = 9 } }

[methods.local]
protocol = "local_only"

[quick]
seeds = [7]
common = { rounds = 1 }
methods = { fedprox = { local = { steps = 1 } } }
"""
CLAIM = '\n[[claims]]\ntext = "t"\nkind = "above"\nmethods = ["fedavg"]\nthan = "local"\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(TEXT)
    return path


def runs(file, *overrides, quick=False):
    return {cell.key: cell.run for cell in cells_of(load_suite(file, overrides, quick=quick))}


def test_every_data_set_meets_every_method_and_seed(file):
    assert len(runs(file)) == 2 * 3 * 2


def test_cell_lies_in_a_folder_by_data_method_and_seed(file):
    assert cells_of(load_suite(file, quick=False))[0].folder == "a/fedavg_s3"


def test_data_set_wins_over_common(file):
    assert runs(file)["b", "fedavg", 3].local.lr == 2e-2


def test_method_wins_over_data_set(file):
    assert runs(file)["b", "fedprox", 3].local.lr == 3e-2


def test_method_on_a_data_set_wins_over_the_method(file):
    assert runs(file)["b", "fedprox", 3].local.steps == 9


def test_keys_that_nobody_overlays_stay(file):
    assert runs(file)["a", "fedprox", 3].local.steps == 3


def test_method_may_change_the_protocol(file):
    assert runs(file)["a", "local", 3].protocol.name == "local_only"


def test_another_plugin_replaces_the_table_of_the_one_below(file):
    assert config.table_of(runs(file)["a", "fedavg", 3].rule) == {"name": "plain"}


def test_seed_sets_all_its_keys(file):
    assert runs(file)["a", "fedavg", 4].data.seed == 4


def test_merging_leaves_its_arguments_alone():
    below = {"local": {"lr": 1.0}}
    merged(below, {"local": {"lr": 2.0}})
    assert below == {"local": {"lr": 1.0}}


def test_quick_changes_what_it_says(file):
    assert {(key[2], run.rounds) for key, run in runs(file, quick=True).items()} == {(7, 1)}


def test_quick_overlays_a_method(file):
    assert runs(file, quick=True)["a", "fedprox", 7].local.steps == 1


def test_without_quick_its_part_changes_nothing(file):
    assert runs(file)["a", "fedavg", 3].rounds == 2


def test_quick_without_a_quick_part_is_refused(file):
    file.write_text(TEXT[: TEXT.index("[quick]")])
    with pytest.raises(ConfigError, match=r"found --quick, but the file has no table .quick."):
        load_suite(file, quick=True)


def test_override_wins_over_quick(file):
    assert runs(file, "common.rounds=5", quick=True)["a", "fedavg", 7].rounds == 5


def test_resolved_suite_reloads_to_an_equal_one(file):
    suite = load_suite(file, quick=True)
    assert config.build(Suite, config.parse(config.dump(suite), "")) == suite


@pytest.mark.parametrize("where", ["common", "data.a", "methods.fedprox", "methods.fedprox.on.b"])
def test_unknown_key_of_a_run_is_refused_where_it_stands(file, where):
    with pytest.raises(UnknownNameError, match=rf"^{where}\.local\.lrr: unknown key\. Did you mean 'lr'"):
        load_suite(file, [f"{where}.local.lrr=1"], quick=False)


def test_refusal_names_the_cell(file):
    with pytest.raises(ConfigError, match=r"cell b/fedprox, seed 3"):
        load_suite(file, ["methods.fedprox.on.b.local.steps=0"], quick=False)


def test_methods_that_are_asked_other_questions_are_refused(file):
    file.write_text(TEXT.replace('protocol = "local_only"', 'protocol = "local_only"\nevaluation = { limit = 2 }'))
    with pytest.raises(ConfigError, match=r"methods.local: evaluation.limit is 2 on data 'a', but 0 for 'fedavg'"):
        load_suite(file, quick=False)


def test_unknown_key_of_the_suite_is_refused(file):
    with pytest.raises(UnknownNameError, match=r"seads: unknown key. Did you mean 'seeds'"):
        load_suite(file, ["seads=[1]"], quick=False)


def test_wrong_key_in_the_quick_part_is_refused_without_quick(file):
    with pytest.raises(UnknownNameError, match=r"quick.comon: unknown key"):
        load_suite(file, ["quick.comon.rounds=1"], quick=False)


def test_run_in_the_quick_part_is_checked_without_quick(file):
    file.write_text(TEXT.replace("common = { rounds = 1 }", "common = { round = 1 }"))
    with pytest.raises(UnknownNameError, match=r"common.round: unknown key"):
        load_suite(file, quick=False)


@pytest.mark.parametrize("kind", ["methods", "data"])
def test_quick_of_an_unknown_name_is_refused(file, kind):
    file.write_text(
        f"{TEXT}\n[quick.{kind}.nobody]\nrounds = 1\n"
        if kind == "data"
        else TEXT.replace("fedprox = { local = { s", "nobody = { local = { s")
    )
    with pytest.raises(ConfigError, match=rf"^quick\.{kind}: found 'nobody'"):
        load_suite(file, quick=False)


@pytest.mark.parametrize(
    ("key", "where"),
    [('score="exact_macth"', "score"), ('scores={a="bleu"}', r"scores\.a"), ('score="preference_accuracy"', "score")],
)
def test_score_that_no_run_will_tell_is_refused_before_any_runs(file, key, where):
    with pytest.raises(ConfigError, match=rf"^{where}: found '\w+', which a/fedavg does not tell; allowed there: loss"):
        load_suite(file, [key], quick=False)


def test_score_of_a_claim_that_no_run_will_tell_is_refused_before_any_runs(file):
    file.write_text(TEXT + CLAIM + 'score = "los"\n')
    with pytest.raises(ConfigError, match=r"^claims\[0\]\.score: found 'los'"):
        load_suite(file, quick=False)


def test_keys_without_a_name_are_for_the_plug_in_named_above(file):
    file.write_text(
        TEXT.replace("[common]", "[common]\nserver_opt = { lr = 0.5 }").replace(
            "[methods.fedavg]", '[methods.fedavg]\nserver_opt = { name = "adagrad" }'
        )
    )
    found = runs(file)
    assert {(run.server_opt.name, run.server_opt.lr) for run in found.values()} == {("adagrad", 0.5), ("sgd", 0.5)}


def test_on_of_an_unknown_data_set_is_refused(file):
    with pytest.raises(ConfigError, match=r"methods.local.on: found 'c'"):
        load_suite(file, ["methods.local.on.c.rounds=1"], quick=False)


def test_seed_given_twice_is_refused(file):
    with pytest.raises(ConfigError, match=r"seeds: found .1, 1., allowed is at least one, each once"):
        load_suite(file, ["seeds=[1, 1]"], quick=False)


def test_method_called_base_is_refused(file):
    with pytest.raises(ConfigError, match=r"methods.base: allowed are names"):
        load_suite(file, ["methods.base.rounds=1"], quick=False)


def test_name_that_leaves_the_directory_is_refused(file):
    file.write_text(TEXT.replace("[data.a]", '[data."../a"]'))
    with pytest.raises(ConfigError, match=r"data.../a: allowed are names of letters"):
        load_suite(file, quick=False)


def test_suite_without_methods_is_refused(file):
    file.write_text('title = "t"\n[data.a]\n[methods]\n')
    with pytest.raises(ConfigError, match=r"methods: found none, allowed is at least one table"):
        load_suite(file, quick=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"fedavg"', '"fedavgg"'), r"claims\[0\].methods: found 'fedavgg'. Did you mean 'fedavg'"),
        (('"local"', '"lokal"'), r"claims\[0\].than: found 'lokal'. Did you mean 'local'"),
        (('kind = "above"', 'kind = "none_best"'), "at least one; for 'none_best' two"),
        (('than = "local"', ""), "than: found '' for 'above'"),
        (('than = "local"', 'than = "local"\ndata = ["c"]'), r"claims\[0\].data: found 'c'"),
        (('than = "local"', 'than = "local"\nmodels = "own"'), "found 'own' without a tag in `groups`"),
    ],
)
def test_claim_that_makes_no_sense_is_refused(file, change, message):
    file.write_text(TEXT + CLAIM.replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_suite(file, quick=False)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ('arm = "pooled"\nmethod = "pooled"', r"controls\[0\].method: found 'pooled'"),
        ('arm = "pooled"', "allowed is an arm with its method, or with why there is none"),
        ('arm = "pooled"\nmethod = "local"\nwhy = "no"', "allowed is an arm with its method, or with why"),
        ('arm = ""\nmethod = "local"', "arm: found ''"),
    ],
)
def test_control_that_makes_no_sense_is_refused(file, control, message):
    file.write_text(f"{TEXT}\n[[controls]]\n{control}\n")
    with pytest.raises(ConfigError, match=message):
        load_suite(file, quick=False)


def test_claim_may_be_about_the_base(file):
    file.write_text(TEXT + CLAIM.replace('"local"', '"base"'))
    assert load_suite(file, quick=False).claims[0].than == "base"


def test_data_set_may_be_ranked_by_a_score_of_its_own(file):
    suite = load_suite(file, ["scores.b=loss"], quick=False)
    assert (suite.headline("a"), suite.headline("b")) == ("exact_match", "loss")


def opened(file, tmp_path, *overrides):
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    (folder / "suite.toml").write_text(config.dump(load_suite(file, overrides, quick=False)))
    return folder


@pytest.mark.parametrize("more", ["seeds=[3, 4, 5]", "methods.new.rounds=1", "data.c.rounds=1", "jobs=7", "title='x'"])
def test_suite_may_grow(file, tmp_path, more):
    check_directory(load_suite(file, [more], quick=False), opened(file, tmp_path))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("common.rounds=9", "common.rounds"),
        ("methods.fedprox.rule.mu=1.0", "methods.fedprox.rule"),
        ("seeds=[3]", "seeds"),
        ("data.a.data.n_clients=5", "data.a.data.n_clients"),
    ],
)
def test_suite_that_changes_a_cell_is_refused_with_its_keys(file, tmp_path, change, key):
    folder = opened(file, tmp_path)
    with pytest.raises(RunError, match=rf"the suite differs from its directory in {key};"):
        check_directory(load_suite(file, [change], quick=False), folder)


def test_folder_without_a_suite_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"no suite directory .it has no suite.toml."):
        load_suite_directory(tmp_path)


def test_cells_that_have_not_ended_are_missing(file, tmp_path):
    assert len(load_suite_directory(opened(file, tmp_path)).missing) == 12


SUITES = sorted((ROOT / "experiments" / "suites").glob("*.toml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
@pytest.mark.parametrize("quick", [False, True])
def test_shipped_suite_loads(path, quick):
    assert cells_of(load_suite(path, quick=quick))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_shipped_suite_has_a_header(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("fedloom bench" in line for line in header) and any("Expected" in line for line in header)


def test_every_shipped_suite_is_tested():
    assert len(SUITES) >= 4
