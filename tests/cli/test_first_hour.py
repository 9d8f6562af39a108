"""What a newcomer meets in the first hour: libraries asked for first, places left free, what was cut told at once."""

import json
import sys
import tomllib

import pytest

from fedloom.base.errors import ConfigError, TrainingError
from fedloom.base.extras import EXTRAS, require
from fedloom.benchmark.runner import opened_directory, waiting_cells
from fedloom.benchmark.suite import load_suite
from fedloom.data.clients import cut_and_dropped
from fedloom.federated.rounds import step
from support.command import fedloom
from support.paths import ROOT
from support.small_runs import small_table, write_run_file
from support.suites import write_suite

pytestmark = pytest.mark.slow  # whole commands

QUICKSTART = ROOT / "experiments" / "quickstart.toml"


def suite_file(folder):
    return write_suite(folder, {"fedavg": {"rounds": 1}}, data={"d": {}, "e": {"seed": 2}})


@pytest.fixture
def without(monkeypatch):
    """Take libraries away, as on a machine that has none of the extras."""

    def take(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return take


# ---------------------------------------------------------------------------------------------- libraries, asked first


@pytest.mark.parametrize(("library", "extra"), EXTRAS.items())
def test_a_missing_library_is_told_with_the_extra_that_brings_it(without, library, extra):
    without(library)
    with pytest.raises(ConfigError, match=rf"^this: needs {library}, which is not installed; .*fedloom\[{extra}\]\.$"):
        require("this", library)


def test_every_extra_is_one_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])


def test_bench_without_matplotlib_is_refused_before_any_cell(tmp_path, monkeypatch, capsys, without):
    without("matplotlib")
    file = suite_file(tmp_path)
    assert fedloom(monkeypatch, "bench", file, "--out", tmp_path / "out") == 2
    assert "needs matplotlib" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_report_without_matplotlib_is_refused_in_one_line(tmp_path, monkeypatch, capsys, without):
    without("matplotlib")
    assert fedloom(monkeypatch, "report", tmp_path) == 2
    assert (
        capsys.readouterr().err
        == "fedloom: report: needs matplotlib, which is not installed; pip install fedloom[report].\n"
    )


def test_tasks_without_lm_eval_are_refused_before_the_model_is_built(tmp_path, monkeypatch, capsys, without):
    without("lm_eval")
    assert fedloom(monkeypatch, "evaluate", "tasks", tmp_path / "no_model", "gsm8k") == 2
    assert "needs lm_eval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("library", "changes"),
    [
        ("dp_accounting", {"privacy": {"name": "gaussian"}, "weighting": "uniform"}),
        ("sacrebleu", {"evaluation": {"metrics": [{"name": "bleu"}]}}),
        ("rouge_score", {"evaluation": {"metrics": [{"name": "rouge_l"}]}}),
        ("langdetect", {"evaluation": {"metrics": [{"name": "language_match"}]}}),
        ("sklearn", {"evaluation": {"metrics": [{"name": "embedding_similarity"}]}}),
        ("datasets", {"data": {"name": "hub", "path": "x"}}),
    ],
)
@pytest.mark.parametrize("command", ["run", "audit", "doctor"])
def test_a_run_that_needs_a_missing_library_is_refused_before_anything(
    tmp_path, monkeypatch, capsys, without, command, library, changes
):
    without(library)
    file = write_run_file(tmp_path, **changes)
    words = [] if command == "doctor" else ["--out", tmp_path / "out"]
    assert fedloom(monkeypatch, command, file, *words) == 2
    assert f"needs {library}, which is not installed" in capsys.readouterr().err and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------- refused runs leave no folder


@pytest.mark.parametrize(
    "wrong",
    [
        "data.path=missing.jsonl",
        "model.path=missing",
        "clients_per_round=99",
        "share=no_such_name",
        "task.max_length=1",
        "local.lr=1e30",
    ],
)
def test_a_refused_run_leaves_its_place_free(tmp_path, monkeypatch, capsys, wrong):
    file, out = write_run_file(tmp_path, rounds=1), tmp_path / "runs" / "mine"
    assert fedloom(monkeypatch, "run", file, wrong, "--quiet", "--out", out) == 2
    assert not out.exists()
    assert fedloom(monkeypatch, "run", file, "--quiet", "--out", out) == 0


def test_a_refused_audit_leaves_its_place_free(tmp_path, monkeypatch, capsys):
    file, out = write_run_file(tmp_path, rounds=1), tmp_path / "audit"
    assert fedloom(monkeypatch, "audit", file, "data.path=missing.jsonl", "--out", out) == 2
    assert not out.exists()


def test_a_run_that_fails_after_a_round_is_kept(tmp_path, monkeypatch, capsys):
    file, out = write_run_file(tmp_path, rounds=4), tmp_path / "mine"
    monkeypatch.setattr("fedloom.runs.execute.step", failing_after(1))
    assert fedloom(monkeypatch, "run", file, "--quiet", "--out", out) == 2
    assert (out / "checkpoints").is_dir()


def test_a_private_run_that_has_begun_to_spend_is_kept(tmp_path, monkeypatch, capsys):
    privacy = {"name": "gaussian", "delta": 1e-3}
    file, out = write_run_file(tmp_path, rounds=4, privacy=privacy, weighting="uniform"), tmp_path / "mine"
    monkeypatch.setattr("fedloom.runs.execute.step", failing_after(0))
    assert fedloom(monkeypatch, "run", file, "--quiet", "--out", out) == 2
    assert json.loads((out / "spending.json").read_text())["uses"]


def failing_after(rounds):
    """The round itself, which refuses once so many have been done."""

    def failing(plan, state, carrier, **more):
        if state.round == rounds:
            raise TrainingError("no more.")
        return step(plan, state, carrier, **more)

    return failing


def test_a_suite_refused_in_every_cell_can_be_mended(tmp_path):
    wrong, right = (
        load_suite(suite_file(tmp_path), words, quick=False) for words in (["common.clients_per_round=99"], [])
    )
    for suite in (wrong, right):  # no cell of the first one has left a directory
        with opened_directory(suite, tmp_path / "out"):
            assert len(waiting_cells(suite, tmp_path / "out")) == 2


# ------------------------------------------------------------------------------------------- what was cut or dropped

COUNTS = {
    "a": {"examples": 6, "kept": 5, "truncated": 1},
    "b": {"examples": 4, "kept": 4, "truncated": 1},
    "(test)": {"examples": 9, "kept": 0, "truncated": 9},
}


def test_shares_are_those_of_training_examples():
    line, _ = cut_and_dropped(COUNTS)
    assert line.startswith("10 training examples of 2 clients: 20.0% cut at task.max_length, 10.0% dropped")


@pytest.mark.parametrize(("truncated", "warns"), [(0, False), (1, False), (2, True)])
def test_more_than_a_fifth_calls_for_a_warning(truncated, warns):
    counts = {"a": {"examples": 10, "kept": 9, "truncated": truncated}}
    assert cut_and_dropped(counts)[1] is warns


def test_a_run_says_it_before_its_first_round(tmp_path, monkeypatch, capsys):
    fedloom(monkeypatch, "run", write_run_file(tmp_path, rounds=1), "--out", tmp_path / "run")
    assert "26 training examples of 4 clients: 0.0% cut" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_run_that_loses_much_warns(tmp_path, monkeypatch, capsys, command):
    task = small_table(tmp_path)["task"] | {"max_length": 38}
    words = [] if command == "doctor" else ["--out", tmp_path / "run"]
    fedloom(monkeypatch, command, write_run_file(tmp_path, rounds=1, task=task), *words)
    assert "WARNING: 26 training examples of 4 clients" in capsys.readouterr().out


@pytest.mark.slow
def test_bench_says_it_once_for_each_data_set(tmp_path, monkeypatch, capsys):
    fedloom(monkeypatch, "bench", suite_file(tmp_path), "--out", tmp_path / "out")
    out = capsys.readouterr().out
    assert [out.count(f"{name}: 26 training examples of 4 clients") for name in "de"] == [1, 1]


def test_the_page_says_it(tmp_path, monkeypatch, capsys):
    fedloom(monkeypatch, "run", write_run_file(tmp_path, rounds=1), "--quiet", "--out", tmp_path / "run")
    fedloom(monkeypatch, "report", tmp_path / "run")
    assert "26 training examples of 4 clients: 0.0% cut" in (tmp_path / "run" / "report.html").read_text()


# ------------------------------------------------------------------------------------------- odd, and told beforehand


def records(path, rows):
    (path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data={{name='file', path='{path / 'odd.jsonl'}', tags={{client='client'}}}}"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"instruction": "a", "output": "b", "client": f"c{at % 2}"} for at in range(20)], "nothing is held out"),
        ([{"instruction": f"a{at}", "output": "b", "client": f"c{at}"} for at in range(2)], "nothing is held out"),
        ([{"instruction": f"a{at}", "output": "", "client": f"c{at % 2}"} for at in range(40)], "with an empty answer"),
    ],
)
def test_data_of_which_nothing_can_be_told_are_warned_of(tmp_path, monkeypatch, capsys, rows, told):
    words = [records(tmp_path, rows), "rounds=1", "local.steps=1"]
    assert fedloom(monkeypatch, "run", QUICKSTART, *words, "--out", tmp_path / "run") == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if told in line]
    assert "WARNING" in warning


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "privacy.epsilon=8",
            "privacy.epsilon: 'none' has no such setting, others have: set privacy.name to 'gaussian' or 'skellam'.",
        ),
        ("rule.mu=0.1", "rule.mu: 'plain' has no such setting, others have: set rule.name to 'prox'."),
        (
            "partition=dirichlet",
            "partition 'dirichlet': found clients = 0, but it deals examples to a number of clients",
        ),
        ("local.batch=1000000000", "local.batch: a step of 1,000,000,000 examples needs about"),
    ],
)
def test_what_cannot_go_well_is_refused_before_the_first_round(tmp_path, monkeypatch, capsys, override, told):
    words = ["run", QUICKSTART, override, "--out", tmp_path / "run"]
    assert fedloom(monkeypatch, *words) == 2
    said = capsys.readouterr()
    assert told in said.err and said.err.count("\n") == 1 and not (tmp_path / "run").exists()
