"""`fedloom sweep`: what it tries, by which questions it picks, what it leaves behind, and what it refuses."""

import json

import pytest

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import DataError
from fedloom.base.plugin import lookup
from fedloom.cli.sweep import _spent, _suite, edges, points_of
from fedloom.contracts.federated import Partition
from fedloom.data.clients import divide
from fedloom.data.holdout import SetAside
from fedloom.results.outcome import outcome
from fedloom.runs.directory import RunDirectory
from support.command import fedloom
from support.small_runs import small_run, write_run_file

QUICK = {"rounds": 1, "evaluation": {"metrics": [], "resamples": 20}}


def swept(monkeypatch, folder, *words, out="sweep", **changes):
    file = write_run_file(folder, **{**QUICK, **changes})
    return fedloom(monkeypatch, "sweep", file, "--jobs", 1, "--out", folder / out, *words)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep over three rates, of which the one in the middle trains best."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        assert swept(patch, folder, "--grid", "local.lr=1e-6,5e-2,5e1", "--quiet") == 0
    return folder


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def again(monkeypatch, folder, *words):
    return swept(monkeypatch, folder, "--grid", "local.lr=1e-6,5e-2,5e1", *words)


def test_best_point_is_printed_as_overrides(done, monkeypatch, capsys):
    assert again(monkeypatch, done, "--quiet") == 0
    assert capsys.readouterr().out.split() == ["local.lr=5e-2"]


def test_every_point_has_a_row(done, monkeypatch, capsys):
    again(monkeypatch, done, "--json")
    told = json.loads(capsys.readouterr().out)
    assert [row["overrides"] for row in told["rows"]] == [["local.lr=1e-6"], ["local.lr=5e-2"], ["local.lr=5e1"]]
    assert told["best"] == ["local.lr=5e-2"] and told["score"] == "loss"


def test_best_run_file_is_the_file_with_the_best_point(done):
    assert api.load_run(done / "sweep" / "best.toml") == api.load_run(done / "run.toml", ["local.lr=5e-2"])


def test_runs_that_have_ended_are_not_run_again(done, monkeypatch):
    before = files(done / "sweep" / "validation")
    again(monkeypatch, done)
    assert files(done / "sweep" / "validation") == before


def test_wider_grid_goes_on_with_the_same_directory(done, monkeypatch, capsys):
    before = files(done / "sweep" / "validation")
    assert swept(monkeypatch, done, "--grid", "local.lr=1e-6,5e-2,5e1,2e-2") == 0
    assert before.items() <= files(done / "sweep" / "validation").items()
    assert "[1/1]" in capsys.readouterr().out


def test_no_question_of_a_report_is_asked(done):
    for place in (done / "sweep" / "validation").iterdir():
        assert {one.set for one in outcome(RunDirectory(place)).results["final"]} == {"validation"}


def test_number_at_the_end_of_what_was_tried_is_warned_of():
    points = points_of(["local.lr=1e-6,2e-2", 'rule="plain","prox"'])
    assert edges(points, ("local.lr=2e-2", 'rule="plain"')) == [
        "local.lr: 2e-2 is the largest that was tried; a wider grid may hold a better one."
    ]


def test_number_within_what_was_tried_is_not():
    assert not edges(points_of(["local.lr=1e-3,1e-2,1e-1"]), ("local.lr=1e-2",))


def test_several_keys_make_every_combination():
    assert points_of(["local.lr=1e-3,1e-2", 'rule="plain","prox"', "ranks=[2, 4],[2]"]) == [
        (rate, rule, ranks)
        for rate in ("local.lr=1e-3", "local.lr=1e-2")
        for rule in ('rule="plain"', 'rule="prox"')
        for ranks in ("ranks=[2, 4]", "ranks=[2]")
    ]


def test_private_points_are_warned_of(tmp_path):
    private = {
        "weighting": "uniform",
        "privacy": {"name": "gaussian", "unit": "client", "epsilon": 0.0, "noise_multiplier": 1.0, "delta": 0.1},
    }
    file = write_run_file(tmp_path, **QUICK, **private)
    (line,) = _spent(_suite(file, [], points_of(["local.lr=1e-3,1e-2"]), [0, 1], ""))
    assert line.startswith("privacy: 4 runs trained on clients' records")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--grid: found one point"),
        (["--grid", "local.lr=1e-2"], "--grid: found one point"),
        (["--grid", "local.lrr=1e-2,1e-3"], "lrr: unknown key"),
        (["--grid", "local.lr=1e-2,1e-3", "--score", "bleu"], "--score: found 'bleu', allowed: loss"),
    ],
)
def test_what_cannot_be_swept_is_refused(tmp_path, monkeypatch, capsys, words, message):
    assert swept(monkeypatch, tmp_path, *words) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


# ------------------------------------------------------------------------------------- what is held out for which split


class Made:
    """A source of given splits."""

    def __init__(self, **splits):
        self.splits = splits

    def load(self):
        return self.splits


def divided(source, split):
    return divide(source, lookup(Partition, "by_key")(), n_clients=0, seed=0, aside=SetAside(0.2), split=split)


def texts(parts):
    return {example for examples in parts.values() for example in map(str, examples)}


@pytest.fixture
def records(tmp_path):
    run = small_run(tmp_path)
    return run.data.load()["train"]


def test_without_a_test_what_is_reported_neither_trains_nor_is_asked(records):
    report, tune = (divided(Made(train=records), split) for split in ("report", "tune"))
    reported = {str(example) for examples in report.validation.values() for example in examples}
    untagged = {str(example) for examples in report.train.values() for example in examples}
    assert not texts(tune.validation) & reported and texts(tune.train) < untagged


def test_without_a_test_given_validation_examples_are_set_aside(records):
    tune = divided(Made(train=records[2:], validation=records[:2]), "tune")
    assert texts(tune.validation) and not texts(tune.validation) & set(map(str, records[:2]))


def test_with_a_test_validation_examples_are_asked_and_the_test_is_not(records):
    asked, *rest = records[7], *records[:7], *records[8:]
    source = Made(train=rest[1:], validation=[asked], test=rest[:1])
    tune = divided(source, "tune")
    assert texts(tune.validation) == {str(asked)} and not tune.test
    assert texts(tune.train) == texts(divided(source, "report").train)


def test_split_is_a_key_of_a_run_file(tmp_path):
    assert config.table_of(small_run(tmp_path))["evaluation"]["split"] == "report"


def test_without_anything_held_out_tuning_is_refused(records):
    with pytest.raises(DataError, match=r"set evaluation\.holdout above 0"):
        divide(
            Made(train=records), lookup(Partition, "by_key")(), n_clients=0, seed=0, aside=SetAside(0.0), split="tune"
        )
