"""`fedloom data describe` as a user meets it."""

import json
import sys

import pytest

from support.command import fedloom
from support.small_runs import write_run_file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_run_file(tmp_path_factory.mktemp("data_describe"))


def test_the_table_has_a_row_per_axis(file, monkeypatch, capsys):
    fedloom(monkeypatch, "data", "describe", file)
    rows = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows == ["Language", "Quality", "Quantity", "Instruction", "Length", "Embedding", "Preference"]


def test_the_table_says_why_an_axis_is_not_measured(file, monkeypatch, capsys):
    fedloom(monkeypatch, "data", "describe", file, "--no-model")
    assert "not measured: it needs the run's model; leave out --no-model" in capsys.readouterr().out


def test_what_each_client_sent_is_printed(file, monkeypatch, capsys):
    fedloom(monkeypatch, "data", "describe", file, "--no-model")
    assert "Quantity: each client sent the number of records" in capsys.readouterr().out


def test_json_is_the_record_alone(file, monkeypatch, capsys):
    fedloom(monkeypatch, "data", "describe", file, "--no-model", "--json")
    assert json.loads(capsys.readouterr().out)["n_clients"] == 4


def test_out_holds_what_is_printed_as_json(file, monkeypatch, capsys, tmp_path):
    fedloom(monkeypatch, "data", "describe", file, "--no-model", "--json", "--out", tmp_path / "new" / "folder")
    written = (tmp_path / "new" / "folder" / "diversity.json").read_text()
    assert json.loads(written) == json.loads(capsys.readouterr().out)


def test_overrides_apply(file, monkeypatch, capsys):
    words = ("partition.name=iid", "clients=2")
    fedloom(monkeypatch, "data", "describe", file, *words, "--no-model", "--json")
    assert json.loads(capsys.readouterr().out)["n_clients"] == 2


def test_a_missing_file_of_records_ends_with_one_line_and_code_2(file, monkeypatch, capsys):
    code = fedloom(monkeypatch, "data", "describe", file, "data.path=nowhere.jsonl")
    assert code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_cannot_be_made_ends_with_code_2(file, monkeypatch, capsys):
    assert fedloom(monkeypatch, "data", "describe", file, "--no-model", "--out", file) == 2


def test_a_missing_matplotlib_is_told_before_anything_is_measured(file, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fedloom(monkeypatch, "data", "describe", file, "data.path=nowhere.jsonl", "--out", tmp_path / "x")
    assert "plots of --out: needs matplotlib" in capsys.readouterr().err
