"""Plug-ins in files beside the run file: found, recorded by hash, found again, refused in one line."""

import hashlib
import json
import subprocess
import sys

import pytest

from fedloom import api
from fedloom.base.errors import ConfigError, RunError
from fedloom.base.plugin import lookup
from fedloom.benchmark.runner import carry_out
from fedloom.benchmark.suite import cells_of, load_suite
from fedloom.contracts.federated import Metric, Rule
from fedloom.results.per_client import direction
from fedloom.results.show import outcome
from fedloom.runs.directory import RunDirectory
from fedloom.runs.export import export
from support.small_runs import small_table

RULE = '''"""Half a step towards the mean change."""

from fedloom.base import tree
from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.federated import Rule


@plugin("halfway")
class Halfway(Rule):
    """Moves by a share of the mean change."""

    share: Fraction = 0.5

    def finish(self, params, local, *, steps, lr):
        """Upload the change."""
        return {"delta": tree.sub(params, local.anchor)}, {}

    def merge(self, shared, mean, *, fraction):
        """Move by a share of it."""
        return tree.scale(mean["delta"], self.share), shared
'''
METRIC = '''"""Letters of an answer."""

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Metric


@plugin("n_letters")
class Letters(Metric):
    """How many letters an answer has; fewer are better."""

    higher_is_better = False

    def __call__(self, example, prediction):
        """Return the count."""
        return Mean(float(len(prediction.text)), 1.0)
'''


@pytest.fixture
def home(tmp_path):
    """A folder with a run file and its two plug-ins."""
    import tomli_w

    folder = tmp_path / "home"
    folder.mkdir()
    table = small_table(folder, rounds=2, rule={"name": "halfway"}, plugins=["halfway.py", "n_letters.py"])
    table["evaluation"] = {**table.get("evaluation", {}), "metrics": ["n_letters"]}
    (folder / "halfway.py").write_text(RULE)
    (folder / "n_letters.py").write_text(METRIC)
    (folder / "run.toml").write_text(tomli_w.dumps(table))
    return folder


def carried(folder, out, *overrides):
    for _ in api.start(api.load_run(folder / "run.toml", overrides), out):
        pass
    return out


def test_a_file_is_found_beside_the_run_file_from_anywhere(home, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert type(api.load_run(home / "run.toml").rule) is lookup(Rule, "halfway")


def test_a_file_is_recorded_by_its_hash(home):
    digest = hashlib.sha256(RULE.encode()).hexdigest()
    assert api.load_run(home / "run.toml").plugins[0] == f"halfway.py@{digest}"


def test_the_run_directory_keeps_the_program_that_made_it(home, tmp_path):
    out = carried(home, tmp_path / "out")
    (home / "halfway.py").write_text("raise ValueError")
    (home / "halfway.py").unlink()
    assert api.resume(out)[0].rule == lookup(Rule, "halfway")()


@pytest.mark.slow
def test_another_process_shows_compares_exports_and_resumes(home, tmp_path):
    out = carried(home, tmp_path / "out")
    for name in ("halfway.py", "n_letters.py"):
        (home / name).unlink()
    commands = (["show", out], ["compare", out, "--json"], ["export", out, "--out", tmp_path / "ex"], ["resume", out])
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "fedloom", *map(str, command)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert command[0] != "compare" or "n_letters" in json.dumps(json.loads(done.stdout))


def test_what_is_better_is_told_by_the_file(home, tmp_path):
    outcome(RunDirectory.open(carried(home, tmp_path / "out")))
    assert direction("n_letters") == -1


def test_a_changed_copy_is_refused(home, tmp_path):
    out = carried(home, tmp_path / "out")
    run = api.load_run(home / "run.toml")
    text = (out / "run.toml").read_text().replace(run.plugins[0], f"halfway.py@{'0' * 64}")
    (out / "run.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"halfway.py is not the file of the run any more"):
        api.resume(out)


def test_a_run_goes_on_with_its_own_program_alone(home, tmp_path):
    out = carried(home, tmp_path / "out")
    (home / "halfway.py").write_text(RULE.replace("= 0.5", "= 0.25"))
    with pytest.raises(RunError, match="differs from its directory in plugins"):
        api.resume(out, expected=api.load_run(home / "run.toml"))


def test_a_file_edited_in_one_session_is_read_anew(home):
    api.load_run(home / "run.toml")
    (home / "halfway.py").write_text(RULE.replace("= 0.5", "= 0.25"))
    assert api.load_run(home / "run.toml").rule.share == 0.25


def test_two_files_with_one_plugin_name_are_compared(home, tmp_path):
    first = carried(home, tmp_path / "first")
    (home / "other.py").write_text(RULE.replace("= 0.5", "= 0.25").replace("class Halfway", "class Quarter"))
    second = carried(home, tmp_path / "second", 'plugins=["other.py", "n_letters.py"]')
    told = [outcome(RunDirectory.open(folder)).settings["plugins"][0][:5] for folder in (first, second, first)]
    assert told == ["halfw", "other", "halfw"]


def test_a_run_is_shown_without_its_programs(home, tmp_path):
    out = carried(home, tmp_path / "out")
    (out / "halfway.py").unlink()
    assert outcome(RunDirectory.open(out)).label == "halfway"


@pytest.mark.parametrize("part", ["data", "methods"])
def test_plugins_of_one_part_of_a_suite_are_refused(home, part):
    import tomli_w

    common = {**api.config.read_toml(home / "run.toml")}
    suite = {"title": "t", "seeds": [0], "score": "loss", "common": common, "data": {"d": {}}, "methods": {"m": {}}}
    suite[part] = {next(iter(suite[part])): {"plugins": ["halfway.py"]}}
    (home / "suite.toml").write_text(tomli_w.dumps(suite))
    with pytest.raises(ConfigError, match=r"plugins: found in one part of a suite; allowed is in \[common\] alone"):
        load_suite(home / "suite.toml", quick=False)


def test_half_a_step_is_half_a_step(home, tmp_path):
    from safetensors.torch import load_file

    names = "checkpoints/round_00001/params.safetensors"
    half, whole = (
        load_file(carried(home, tmp_path / name, f"rule.share={share}", "rounds=1") / names)
        for name, share in (("half", 0.5), ("whole", 1.0))
    )
    moved = [name for name in whole if name.endswith("lora_B")]
    assert moved
    for name in moved:
        assert ((half[name] * 2 - whole[name]).abs() <= 1e-6).all()


@pytest.mark.slow
def test_worker_processes_have_the_plugins(home, tmp_path):
    engine = 'engine={name="processes",workers=2,inner="sequential"}'
    carried(home, tmp_path / "out", engine)
    assert RunDirectory.open(tmp_path / "out").complete


@pytest.mark.slow
def test_a_suite_hands_them_to_its_workers(home, tmp_path):
    import tomli_w

    common = {**api.config.read_toml(home / "run.toml")}
    data = common.pop("data")
    suite = {"title": "t", "seeds": [0], "score": "loss", "common": common, "data": {"d": {"data": data}}}
    suite["methods"] = {"half": {}, "whole": {"rule": {"share": 1.0}}}
    (home / "suite.toml").write_text(tomli_w.dumps(suite))
    ended = list(carry_out(cells_of(load_suite(home / "suite.toml", quick=False)), tmp_path / "s", jobs=1))
    assert [one.problem for one in ended] == ["", ""]


def test_export_finds_what_the_run_was_made_with(home, tmp_path):
    export(carried(home, tmp_path / "out"), tmp_path / "exported")
    assert (tmp_path / "exported" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", "line 1: SyntaxError"),
        ("import os\n\nx = undefined\n", "line 3: NameError"),
        ("import no_such_library\n", "no_such_library"),
        ("raise SystemExit(3)\n", "line 1: SystemExit"),
        (RULE.replace("halfway", "plain"), "two plug-ins of family Rule are called 'plain'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(home, text, said):
    (home / "halfway.py").write_text(text)
    with pytest.raises(ConfigError, match=f"plugins: .*halfway.py .*{said}") as caught:
        api.load_run(home / "run.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "named", [["absent.py"], ["no_such_module"], [3], "halfway.py", ["halfway.py", "x/halfway.py"]]
)
def test_what_is_no_plugin_is_refused(home, named):
    (home / "x").mkdir()
    (home / "x/halfway.py").write_text(RULE)
    with pytest.raises(ConfigError, match="plugins: "):
        api.load_run(home / "run.toml", [f"plugins={json.dumps(named)}"])


def test_metric_of_a_file_scores_answers(home, tmp_path):
    found = outcome(RunDirectory.open(carried(home, tmp_path / "out")))
    scores = [one.scores["n_letters"].total for one in found.results["final"] if "n_letters" in one.scores]
    assert scores and lookup(Metric, "n_letters").higher_is_better is False
