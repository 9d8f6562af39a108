"""`fedloom split`: parts of a model and the audit, from the command line."""

import json

import pytest

from fedloom.models.part_files import Manifest
from support.command import fedloom
from support.models import model_folder
from support.small_runs import write_records, write_run_file


@pytest.fixture
def made(tmp_path):
    model_folder(tmp_path / "model", num_hidden_layers=4)
    write_records(tmp_path / "data.jsonl")
    return tmp_path


def test_a_model_is_partitioned(made, monkeypatch, capsys):
    assert fedloom(monkeypatch, "split", "partition", made / "model", "--cut", "1:2", "--out", made / "parts") == 0
    assert [line.split(": ")[0].rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == [
        "input",
        "middle",
        "output",
    ]
    assert Manifest.read(made / "parts" / "middle").cut == "1:2"


def test_a_cut_that_does_not_fit_ends_with_2_and_one_line(made, monkeypatch, capsys):
    assert fedloom(monkeypatch, "split", "partition", made / "model", "--cut", "2:2", "--out", made / "parts") == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "found 2:2 of a model of 4 blocks" in told[0]
    assert not (made / "parts").exists()


@pytest.mark.slow
def test_a_run_file_and_a_run_are_audited(made, monkeypatch, capsys):
    file, few = write_run_file(made, protocol={"name": "split"}, rounds=1), ("--texts", 1, "--steps", 2)
    assert fedloom(monkeypatch, "run", file, "--quiet", "--out", made / "run") == 0
    capsys.readouterr()
    assert fedloom(monkeypatch, "split", "audit", file, *few, "--json") == 0
    before = json.loads(capsys.readouterr().out)
    assert fedloom(monkeypatch, "split", "audit", made / "run", *few, "--json") == 0
    after = json.loads(capsys.readouterr().out)
    assert before.keys() | {"the base alone known"} == after.keys()
    assert before["T3" if "T3" in before else "the client's weights known"] != {}
    assert after["loss"] < before["loss"]


def test_overrides_of_a_run_directory_are_refused(made, monkeypatch, capsys):
    assert fedloom(monkeypatch, "split", "audit", made, "rounds=1") == 2
    assert "a run directory says all" in capsys.readouterr().err


def test_the_shipped_file_runs_small(tmp_path, monkeypatch, capsys):
    from support.paths import ROOT

    words = ["rounds=1", "local.steps=1", "data.records=8", "evaluation.limit=3", "evaluation.resamples=20"]
    file = ROOT / "experiments" / "split.toml"
    assert fedloom(monkeypatch, "run", file, *words, "--quiet", "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert fedloom(monkeypatch, "show", tmp_path / "run") == 0
    assert "split 1:1" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demonstration_learns_and_is_read(tmp_path, monkeypatch, capsys):
    assert fedloom(monkeypatch, "split", "demo", "--out", tmp_path / "demo") == 0
    told = capsys.readouterr().out
    scores = [float(line.split("facts ")[1].split(",")[0]) for line in told.splitlines() if "exact match" in line]
    assert len(scores) == 2 and scores[1] > scores[0] + 0.3
    assert "1024 bytes a token, both ways" in told and "T3 (the client's weights known)" in told
    assert "The server could still reconstruct text" in told
    assert (tmp_path / "demo" / "adapter").is_dir()
