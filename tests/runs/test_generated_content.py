"""Generated examples beside clients' own: budgets, guidance, exposure, strategies, cost, and what is refused."""

import base64
import json
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from safetensors.torch import load_file

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import ConfigError, DataError, FedloomError
from fedloom.base.plugin import lookup, names, plugin
from fedloom.benchmark.page.page import page
from fedloom.cli.main import main
from fedloom.contracts.data import Source
from fedloom.contracts.evaluation import Completer
from fedloom.contracts.examples import chat, tagged
from fedloom.contracts.federated import Rule, ServerOpt
from fedloom.contracts.generation import Generated, Generator, Place, Prompter, Request, is_generated
from fedloom.contracts.labelled import Picture, Row
from fedloom.contracts.stages import Owner, Preparation
from fedloom.contracts.synthesis import Filter
from fedloom.results.content import content_of
from fedloom.results.outcome import outcome
from fedloom.runs.directory import RunDirectory
from fedloom.runs.prepared import prepare
from fedloom.runs.preparing import examples_made
from fedloom.runs.tuning import read_run
from fedloom.synthesis.generators.gaussian import Gaussian
from fedloom.synthesis.worth import worth
from support.digits import TABLE, changed

LABELS = tuple(map(str, range(10)))
GC = {"name": "generated", "total": 20}


def started(folder, **changes):
    """A run with these changes, to its end."""
    list(api.start(read_run(changed(**changes)), folder))
    return folder


def weights(folder):
    return load_file(folder / "adapter" / "model.safetensors")


def equal(one, other):
    one, other = weights(one), weights(other)
    return all((one[name] == other[name]).all() for name in one)


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def table_of(folder):
    return config.parse((folder / "run.toml").read_text(), "run.toml")


def card(folder):
    return json.loads((folder / "partition.json").read_text())


def manifests(folder):
    files = sorted(folder.glob("prepared/*_generated/*/manifest.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


class Own(Generator):
    """A generator of these tests: it does not tell what it depends on, as it depends on nothing."""

    makes = (Picture,)

    def identity(self):
        return ""


@plugin("counting_gaussian")
class CountingGaussian(Own):
    """A generator that counts what it is asked for."""

    data_guided = True
    asked: ClassVar[int] = 0

    def __call__(self, requests, place):
        CountingGaussian.asked += len(requests)
        return Gaussian()(requests, place)

    def model_bytes(self, place):
        return Gaussian().model_bytes(place)


# ------------------------------------------------------------------------------------------------------- limiting cases


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return started(tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"prepare": [GC | {"total": 0}]},
        {"prepare": [GC], "local": {"p_generated": 0.0}},
    ],
    ids=["no budget", "no share"],
)
def test_without_generated_examples_it_is_fedavg_bit_for_bit(changes, plain, tmp_path):
    assert equal(plain, started(tmp_path / "run", **changes))


def test_with_generated_examples_it_is_not(plain, tmp_path):
    assert not equal(plain, started(tmp_path / "run", prepare=[GC]))


def test_a_share_of_one_is_generated_examples_alone_bit_for_bit(tmp_path):
    share = started(tmp_path / "share", prepare=[GC], local={"p_generated": 1.0})
    alone = started(tmp_path / "alone", prepare=[GC | {"own": False}])
    assert equal(share, alone)


def test_one_client_is_centralised_training_on_both(tmp_path):
    # All 60 and 20 examples in each step: what a batch holds no longer goes by the owner's name.
    one = {"clients": 1, "partition": {"name": "iid"}, "prepare": [GC], "local": {"batch": 80}}
    federated = started(tmp_path / "federated", **one)
    central = started(tmp_path / "central", protocol="centralised", **one)
    for name, values in weights(federated).items():
        np.testing.assert_allclose(values, weights(central)[name], atol=1e-6)
    made = examples_made(federated, "generated")
    assert made == examples_made(central, "generated") and len(made) == 20


@pytest.mark.parametrize("rule", names(Rule))
@pytest.mark.parametrize("server_opt", names(ServerOpt))
def test_every_method_runs_with_generated_examples(rule, server_opt, tmp_path):
    changes = {"server_opt": {"name": server_opt, "lr": 1.0 if server_opt == "sgd" else 0.05}, "rule": rule}
    folder = started(tmp_path / "run", prepare=[GC], rounds=1, **changes)
    assert [one["name"] for one in lines(folder, "metrics.jsonl") if one["name"] == "test/accuracy"]


def test_a_proximal_weight_of_zero_is_fedavg_with_generated_examples_too(tmp_path):
    one = started(tmp_path / "one", prepare=[GC])
    assert equal(one, started(tmp_path / "other", prepare=[GC], rule={"name": "prox", "mu": 0.0}))


# ------------------------------------------------------------------------------------------------- budgets and guidance


def test_every_client_gets_its_budget_over_all_classes(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC])
    found = Counter((line["client"], line["class"]) for line in manifests(folder))
    assert set(found.values()) == {2} and len(found) == 40


def test_mixed_guidance_falls_back_on_words_for_absent_classes_and_marks_it(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC])
    held = {client: set(tags) for client, tags in card(folder)["tags"]["label"]["by_client"].items()}
    for line in manifests(folder):
        assert line["fallback"] == (line["class"] not in held[line["client"]]) == (line["source_private_id"] is None)
        assert line["strength"] == (1.0 if line["fallback"] else 0.5)


def test_real_guidance_gives_nothing_of_absent_classes_and_spends_the_budget(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC | {"guidance": "real"}])
    held = {client: set(tags) for client, tags in card(folder)["tags"]["label"]["by_client"].items()}
    assert all(line["class"] in held[line["client"]] for line in manifests(folder))
    assert set(Counter(line["client"] for line in manifests(folder)).values()) == {20}


def test_held_classes_are_generated_alone_and_nobody_is_told_of_others(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC | {"classes": "held", "guidance": "prompt"}])
    held = {client: set(tags) for client, tags in card(folder)["tags"]["label"]["by_client"].items()}
    assert {client: {one["class"] for one in manifests(folder) if one["client"] == client} for client in held} == held
    assert not any("classes of the task" in line["what"] for line in lines(folder, "ledger.jsonl"))


def test_the_ledger_says_that_the_classes_were_published(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC])
    told = [
        line for line in lines(folder, "ledger.jsonl") if line["what"] == "server to client, the 10 classes of the task"
    ]
    assert len(told) == 4 and all(line["download_bytes"] == len(json.dumps(LABELS)) for line in told)


def test_the_card_says_in_what_clients_differ(plain):
    assert card(plain)["heterogeneity"] == "label skew"


def test_nothing_but_numbers_of_samples_leaves_a_client(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC])
    assert {tuple(sorted(one["counts"])) for one in card(folder)["prepared"]} == {("accepted", "generated")}
    assert all(one["sent"] == {} for one in card(folder)["prepared"])


# ------------------------------------------------------------------------------------------------------------- exposure


def test_own_examples_are_met_as_often_where_exposure_is_matched(plain, tmp_path):
    matched = started(tmp_path / "matched", prepare=[GC], local={"match_exposure": True})
    dealt = started(tmp_path / "dealt", prepare=[GC], local={"match_exposure": True, "p_generated": 0.5, "steps": 60})
    longer = started(tmp_path / "longer", local={"steps": 60})
    runs = {"plain": plain, "matched": matched, "dealt": dealt, "longer": longer}
    visits = {name: content_of(outcome(RunDirectory.open(folder))).visits for name, folder in runs.items()}
    assert visits["matched"] == pytest.approx(visits["plain"], rel=0.02)
    assert visits["dealt"] == pytest.approx(visits["longer"], rel=0.02)


def test_without_that_generated_examples_take_visits_from_own_ones(plain, tmp_path):
    folder = started(tmp_path / "run", prepare=[GC])
    told = [line for line in lines(folder, "ledger.jsonl") if "own_seen" in line]
    assert told and all(line["own_seen"] < line["samples_seen"] for line in told)
    assert not any("own_seen" in line for line in lines(plain, "ledger.jsonl"))


def test_a_share_of_generated_elements_is_what_is_met(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC], local={"p_generated": 0.25, "steps": 100}, rounds=1)
    told = [line for line in lines(folder, "ledger.jsonl") if "own_seen" in line]
    share = sum(line["own_seen"] for line in told) / sum(line["samples_seen"] for line in told)
    assert share == pytest.approx(0.75, abs=0.03)


def test_first_rounds_may_train_on_generated_examples_alone(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC], local={"pretrain": 1})
    told = [line for line in lines(folder, "ledger.jsonl") if "own_seen" in line]
    assert {line["round"]: line["own_seen"] > 0 for line in told} == {0: False, 1: True}
    first = started(tmp_path / "first", prepare=[GC | {"own": False}], rounds=1)
    one = started(tmp_path / "one", prepare=[GC], local={"pretrain": 1}, rounds=1)
    assert equal(first, one)


def test_alone_and_together_clients_take_as_many_steps(tmp_path):
    federated = started(tmp_path / "federated", prepare=[GC])
    alone = started(tmp_path / "alone", prepare=[GC], protocol="local_only")
    seen = [Counter() for _ in range(2)]
    for folder, count in zip((federated, alone), seen, strict=True):
        for line in lines(folder, "ledger.jsonl"):
            count[line["client"]] += line.get("samples_seen", 0)
    assert seen[0] == seen[1] and set(seen[0].values()) == {2 * 6 * 8}


# ----------------------------------------------------------------------------------------------------------- strategies


def test_one_set_for_all_costs_its_kth_part_and_leaves_nobody(tmp_path):
    CountingGaussian.asked = 0
    stage = GC | {"generator": "counting_gaussian", "guidance": "prompt"}
    own = started(tmp_path / "own", prepare=[stage])
    asked_of_each = CountingGaussian.asked
    CountingGaussian.asked = 0
    shared = started(tmp_path / "shared", prepare=[stage | {"shared": True}])
    assert asked_of_each == 4 * 20 == 4 * CountingGaussian.asked
    costs = [content_of(outcome(RunDirectory.open(one))).cost["samples"] for one in (own, shared)]
    assert costs == [80, 20]
    train = prepare(read_run(table_of(shared)), shared).division.train
    made = [tuple(one for one in owned if is_generated(one)) for owned in train.values()]
    assert len(made) == 4 and len(set(map(repr, made))) == 1


def test_the_server_may_train_on_generated_examples_with_a_budget_that_follows_the_loss(tmp_path):
    local = {"lr": 0.1, "steps": 5, "batch": 8, "optimiser": "sgd", "schedule": "constant"}
    stage = {"name": "on_generated", "total": 31, "local": local}
    folder = started(tmp_path / "run", refine=[stage], refine_every=1)
    files = sorted(folder.glob("refined/*/manifest.jsonl"))
    dealt = [Counter(json.loads(line)["class"] for line in file.read_text().splitlines()) for file in files]
    assert len(files) == 2 and all(sum(one.values()) == 31 for one in dealt)
    assert len(set(dealt[1].values())) > 1  # half of it went where the loss was
    even = started(tmp_path / "even", refine=[stage | {"adapt": False, "total": 30}])
    (file,) = even.glob("refined/*/manifest.jsonl")
    assert set(Counter(json.loads(line)["class"] for line in file.read_text().splitlines()).values()) == {3}
    assert content_of(outcome(RunDirectory.open(folder))).at_server == 62


@plugin("noise")
class Noise(Own):
    """A generator that makes noise of every class."""

    def __call__(self, requests, place):
        made = Gaussian()(requests, place).samples
        drawn = [np.random.default_rng(one.seed).integers(0, 256, 64, np.uint8).tobytes() for one in requests]
        return Generated([Picture(p, m.shape, m.label, m.tags) for p, m in zip(drawn, made, strict=True)])


def test_a_noise_generator_is_worth_a_tenth_of_a_good_one_at_most():
    parts = lookup(Source, "digits")(public=200, private=200).parts()
    asked = [Request(label=label, prompt="", seed=at) for at, label in enumerate(LABELS * 10)]
    made = [kind()(asked, Place(parts.public)).samples for kind in (Gaussian, Noise)]
    good, bad = (worth(samples, parts.private, LABELS, "label") for samples in made)
    assert good > 0.5 and bad <= 0.1 * good


def test_a_client_keeps_as_much_as_samples_are_worth_to_it(tmp_path):
    stage = GC | {"weigh": "own_loss", "guidance": "prompt"}
    stages = {kind: stage | {"generator": kind} for kind in ("gaussian", "noise")}
    found = {kind: card(started(tmp_path / kind, prepare=[stage])) for kind, stage in stages.items()}
    kept = {kind: sum(one["counts"]["kept"] for one in told["prepared"]) for kind, told in found.items()}
    assert 0 < kept["gaussian"] < 80 and kept["noise"] <= 0.1 * kept["gaussian"]


# -------------------------------------------------------------------------------------------------------- cost, records


def test_the_cost_ledger_is_what_a_spy_counts(tmp_path):
    CountingGaussian.asked = 0
    folder = started(tmp_path / "run", prepare=[GC | {"generator": "counting_gaussian"}])
    costs = [json.loads(file.read_text()) for file in folder.glob("prepared/*/*/cost.json")]
    assert sum(one["samples"] for one in costs) == CountingGaussian.asked == 80
    assert sum(one["bytes"] for one in costs) == 80 * 64 and all(one["model_bytes"] > 0 for one in costs)
    assert content_of(outcome(RunDirectory.open(folder))).cost["samples"] == 80


def test_a_page_without_the_cost_says_so(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC])
    assert "missing: cost" not in page(folder)
    for file in folder.glob("prepared/*/*/cost.json"):
        file.unlink()
    assert "missing: cost" in page(folder)


def test_a_stopped_run_ends_with_the_same_bytes_and_generates_nothing_twice(tmp_path):
    whole = started(tmp_path / "whole", prepare=[GC | {"generator": "counting_gaussian"}])
    table = changed(prepare=[GC | {"generator": "counting_gaussian"}])
    events = api.start(read_run(table), tmp_path / "stopped")
    for _ in range(4):
        next(events)
    events.close()
    CountingGaussian.asked = 0
    list(api.resume(tmp_path / "stopped")[1])
    assert CountingGaussian.asked == 0 and equal(whole, tmp_path / "stopped")


def test_pictures_that_were_made_are_read_again_as_they_were(tmp_path):
    folder = started(tmp_path / "run", prepare=[GC])
    file = next(folder.glob("prepared/0_generated/*.json"))
    one = next(one for one in json.loads(file.read_text())["examples"] if "origin" in one["example"]["tags"])
    assert len(base64.b64decode(one["example"]["pixels"])) == 64
    damaged = json.loads(file.read_text())
    damaged["examples"][0]["example"]["shape"] = [1, 8, 9]
    file.write_text(json.dumps(damaged))
    with pytest.raises(FedloomError, match="delete it to have it made again"):
        prepare(read_run(table_of(folder)), folder)


# ------------------------------------------------------------------------------------------------------------- refusals


def broken(name, samples):
    """A generator that gives what a function makes of a request."""

    @plugin(name)
    class One(Own):
        def __call__(self, requests, place):
            return Generated([samples(request, place) for request in requests])

    return One


def digit(request, place):
    return tagged(next(one for one in place.public if one.label == request.label), origin="generated")


broken("other_size", lambda r, p: Picture(bytes(81), (1, 9, 9), r.label, {"label": r.label, "origin": "generated"}))
broken("other_class", lambda r, p: tagged(digit(r, p), label="x"))
broken("other_kind", lambda r, p: Row((1.0,), r.label, {"label": r.label, "origin": "generated"}))
broken("nothing", lambda r, p: None)


@plugin("too_few")
class TooFew(Own):
    def __call__(self, requests, place):
        return Generated([])


@plugin("far_away")
class FarAway(Own):
    data_guided = True

    def __call__(self, requests, place):
        return Generated([digit(request, place) for request in requests])

    def remote(self):
        return "example.org"


@pytest.mark.parametrize(
    ("generator", "said"),
    [
        ("other_size", r"sample 0 is a Picture of \[1, 9, 9\], the client's own are a Picture of \[1, 8, 8\]"),
        ("other_class", "sample 0 is of class 'x', asked for was '0'"),
        ("other_kind", r"sample 0 is a Row of \[1\]"),
        ("nothing", "returned nothing that can be used"),
        ("too_few", "0 samples came for 20 requests"),
    ],
)
def test_a_generator_that_does_not_do_what_it_is_asked_is_refused(generator, said, tmp_path):
    with pytest.raises(DataError, match=said):
        started(tmp_path / "run", prepare=[GC | {"generator": generator, "guidance": "prompt"}])


def test_rows_with_nan_are_refused(tmp_path):
    @plugin("nan_rows")
    class Nan(Own):
        makes = (Row,)

        def __call__(self, requests, place):
            tags = {"origin": "generated"}
            return Generated([Row((float("nan"),) * 2, one.label, tags | {"label": one.label}) for one in requests])

    own = [Row((0.0, 1.0), label, {"label": label}) for label in "ab"]
    stage = lookup(Preparation, "generated")(generator=Nan(), labels=("a", "b"), total=2, guidance="prompt")
    with pytest.raises(DataError, match="sample 0 holds NaN or infinity"):
        stage(own, Owner("anna", 0, None))


def test_a_generator_that_gives_a_test_example_is_refused_by_its_number(tmp_path):
    test = lookup(Source, "digits")(**{k: v for k, v in TABLE["data"].items() if k != "name"}).parts().test
    by_label = {one.label: one for one in test}

    @plugin("leaky")
    class Leaky(Own):
        def __call__(self, requests, place):
            return Generated([tagged(by_label[one.label], origin="generated") for one in requests])

    with pytest.raises(DataError, match=r"generated example 0 is held-out example \d+"):
        started(tmp_path / "run", prepare=[GC | {"generator": "leaky", "guidance": "prompt"}])


def test_a_public_example_that_is_tested_with_is_refused_by_its_number(tmp_path):
    rows = "a,b,label\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n"
    for name, text in (("train", rows), ("test", "a,b,label\n9,9,x\n"), ("public", "a,b,label\n1,1,y\n9,9,x\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    paths = (("path", "train"), ("test_path", "test"), ("public_path", "public"))
    data = {key: str(tmp_path / f"{name}.csv") for key, name in paths}
    table = {**TABLE, "data": {"name": "table", **data}, "clients": 2, "partition": {"name": "iid"}}
    model = {"name": "mlp", "inputs": [2], "classes": 2, "hidden": [4]}
    with pytest.raises(DataError, match="public example 1 is held-out example 0"):
        prepare(read_run(table | {"model": model, "task": {"name": "classify", "labels": ["x", "y"]}}))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"labels": ["0", "0"]}, "found one twice"),
        ({"generator": "public"}, "starts from no example; set guidance = 'prompt'"),
        ({"shared": True}, "allowed are 'prompt' and 'published'"),
        ({"shared": True, "guidance": "prompt", "classes": "held"}, "allowed are 'prompt' and 'published'"),
        ({"generator": "far_away"}, "runs on example.org: private examples would go there"),
        ({"generator": "far_away", "guidance": "real"}, "runs on example.org: private examples would go there"),
        ({"filters": ["grounding"]}, "'grounding' looks at document"),
        ({"prompts": {"name": "written", "completer": "canned"}}, "generator 'gaussian' reads no words"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(stage, said):
    with pytest.raises(ConfigError, match=said):
        read_run({**TABLE, "prepare": [GC | stage]})


@pytest.mark.parametrize("stage", [{"guidance": "prompt"}, {"allow_remote": True}])
def test_a_generator_elsewhere_is_taken_with_words_alone_or_where_it_is_allowed(stage):
    read_run({**TABLE, "prepare": [GC | {"generator": "far_away"} | stage]})


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({}, "start from private ones"),
        ({"guidance": "prompt", "allocator": "inverse"}, "deals by what a client has"),
        ({"guidance": "prompt", "classes": "held"}, "deals by what a client has"),
        ({"guidance": "prompt", "weigh": "own_loss"}, "weighs samples by private ones"),
    ],
)
def test_privacy_of_examples_refuses_what_lets_one_example_decide_about_several(stage, said):
    privacy = {"name": "gaussian", "unit": "example", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 0.001}
    with pytest.raises(ConfigError, match=said):
        read_run({**TABLE, "weighting": "uniform", "privacy": privacy, "prepare": [GC | stage]})
    read_run({**TABLE, "weighting": "uniform", "privacy": privacy, "prepare": [GC | {"guidance": "prompt"}]})


@pytest.mark.parametrize("local", [{"p_generated": 0.5}, {"pretrain": 1}, {"match_exposure": True}])
def test_privacy_of_examples_refuses_shares_that_its_draws_would_pass_over(local):
    privacy = {"name": "gaussian", "unit": "example", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 0.001}
    with pytest.raises(ConfigError, match="each of which is drawn by itself"):
        read_run(changed(weighting="uniform", privacy=privacy, prepare=[GC | {"guidance": "prompt"}], local=local))


def test_a_class_that_was_not_published_is_refused_with_those_that_were(tmp_path):
    with pytest.raises(DataError, match=r"has class '\d', published are 0, 1"):
        started(tmp_path / "run", prepare=[GC | {"labels": ["0", "1"]}])


def test_without_classes_and_public_examples_it_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="name all classes of the task"):
        started(tmp_path / "run", prepare=[GC], data={"public": 0})


def test_a_class_that_the_generator_does_not_know_is_one_line_and_code_2(tmp_path, capsys, monkeypatch):
    file = tmp_path / "run.toml"
    file.write_text(config.dump(read_run({**TABLE, "prepare": [GC | {"labels": [*LABELS, "ten"]}]})))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fedloom", "run", str(file), "--quiet", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("fedloom: generator 'gaussian': class 'ten'")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------------------- texts


def test_generated_conversations_pass_filters_and_are_accounted_for():
    patterns = {"cat": "What does a cat say to you?\nResponse: Miaow.", "dog": "no pair"}
    topics = lookup(Generator, "topics")(completer=lookup(Completer, "canned")(patterns=patterns))
    prompts = {"templates": ("Write about {label}. {attribute}",)}
    stage = lookup(Preparation, "generated")(
        generator=topics,
        labels=("cat", "dog"),
        by="topic",
        total=6,
        guidance="prompt",
        prompts=lookup(Prompter, "multiple")(**prompts),
        filters=(lookup(Filter, "duplicate")(),),
    )
    own = [chat("What do dogs do?", "Bark.", topic="dog")]
    made = stage(own, Owner("anna", 0, None))
    assert made.counts["generated"] == 6 and made.counts["rejected_nothing"] == 3
    assert made.counts["generated"] == sum(n for name, n in made.counts.items() if name != "generated")
    assert [one.reference for one in made.examples] == ["Bark.", "Miaow."]
