"""`fedloom evaluate copies`: what a generator gave away of the private examples of a run."""

import json

import pytest

from fedloom import api
from fedloom.base.errors import DataError
from fedloom.results.copies import copies
from fedloom.runs.tuning import read_run
from support.command import fedloom
from support.digits import changed

pytestmark = pytest.mark.slow  # whole runs

CHANGES = {
    "rounds": 1,
    "clients": 3,
    "data": {"public": 200, "test": 400, "private": 120},
    "partition": {"beta": 0.2},
    "local": {"steps": 2},
}


def started(folder, **stage):
    prepare = [{"name": "generated", "total": 100, **stage}] if stage else []
    list(api.start(read_run(changed(**CHANGES, prepare=prepare)), folder))
    return folder


def test_a_generator_that_gives_private_examples_back_is_flagged(tmp_path):
    found = copies(started(tmp_path / "run", guidance="real", real_strength=0.0))
    assert found.nearer > 0.9 and found.copied


def test_a_generator_fitted_on_the_public_split_passes(tmp_path):
    found = copies(started(tmp_path / "run", guidance="prompt"))
    assert 0.3 < found.nearer < 0.7 and found.copies == 0 and not found.copied


def test_the_command_says_it_in_a_table_and_as_json(tmp_path, monkeypatch, capsys):
    folder = started(tmp_path / "run", guidance="prompt")
    assert fedloom(monkeypatch, "evaluate", "copies", folder) == 0
    assert "no sign of copying" in capsys.readouterr().out
    assert fedloom(monkeypatch, "evaluate", "copies", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["copied"] is False


def test_a_run_without_generated_examples_is_refused(tmp_path, monkeypatch, capsys):
    folder = started(tmp_path / "run")
    with pytest.raises(DataError, match="no client has generated examples"):
        copies(folder)
    assert fedloom(monkeypatch, "evaluate", "copies", folder) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
