"""`fedloom init`: a run file from data alone, which runs as it is written."""

import json

import pytest

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import FedloomError
from fedloom.runs.first_file import write_first_file
from support.command import fedloom


def jsonl(path, records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def pairs(name, count=24, **more):
    return [{"instruction": f"who is number {i}?", "output": f"{name} {i}", **more} for i in range(count)]


def written(folder, data, **options):
    out = folder / "first.toml"
    write_first_file(out, str(data), "", **({"client": "", "columns": {}} | options))
    return config.read_toml(out)


def test_what_is_written_runs_as_it_is(tmp_path):
    jsonl(tmp_path / "all.jsonl", [one for name in ("ada", "bo") for one in pairs(name, hospital=name)])
    written(tmp_path, tmp_path / "all.jsonl")
    run = api.load_run(tmp_path / "first.toml", ["rounds=1", "local.steps=1", "local.batch=2"])
    for _ in api.start(run, tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "report.md").is_file()


def test_a_column_that_looks_like_an_owner_makes_the_clients(tmp_path):
    data = jsonl(tmp_path / "all.jsonl", [one for name in ("ada", "bo") for one in pairs(name, hospital=name)])
    table = written(tmp_path, data)
    assert (table["data"]["tags"], table["partition"]) == ({"client": "hospital"}, {"name": "by_key", "tag": "client"})


def test_the_owner_asked_for_goes_before_one_that_looks_like_it(tmp_path):
    data = jsonl(
        tmp_path / "all.jsonl", [one for name in ("ada", "bo") for one in pairs(name, hospital="h", ward=name)]
    )
    assert written(tmp_path, data, client="ward")["data"]["tags"] == {"client": "ward"}


def test_without_an_owner_records_are_dealt_out_and_it_says_so(tmp_path):
    table = written(tmp_path, jsonl(tmp_path / "all.jsonl", pairs("ada", 40)))
    assert (table["clients"], table["partition"]) == (4, {"name": "iid"})
    assert "a simulation" in (tmp_path / "first.toml").read_text()


def test_three_hospitals_three_layouts(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "north.csv").write_text(
        "Frage,Antwort\n" + "".join(f"Wie heißt {i}?,Müller {i}\n" for i in range(20)), encoding="cp1252"
    )
    jsonl(data / "south.jsonl", pairs("ada"))
    turns = [[{"role": "user", "content": f"who, {i}?"}, {"role": "assistant", "content": "Bo."}] for i in range(20)]
    (data / "west.json").write_text(json.dumps([{"messages": one} for one in turns]))
    table = written(tmp_path, data)
    assert [(one["form"], one.get("encoding", "")) for one in table["data"]["files"]] == [
        ("alpaca", "cp1252"),
        ("alpaca", ""),
        ("messages", ""),
    ]
    assert table["data"]["files"][0]["columns"] == {"instruction": "Frage", "output": "Antwort"}
    assert table["partition"] == {"name": "by_key", "tag": "file"}


def test_preferences_are_learnt_by_dpo(tmp_path):
    data = [{"prompt": f"say {i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(40)]
    assert written(tmp_path, jsonl(tmp_path / "all.jsonl", data))["task"]["name"] == "dpo"


def test_documents_are_asked_nothing(tmp_path):
    data = [{"Befund": f"Patient {i} is well."} for i in range(40)]
    table = written(tmp_path, jsonl(tmp_path / "all.jsonl", data))
    assert (table["data"]["columns"], table["evaluation"]["metrics"]) == ({"text": "Befund"}, [])


def test_lengths_cover_the_examples(tmp_path):
    long = [{"instruction": "tell " * 40, "output": f"well {i}"} for i in range(40)]
    assert written(tmp_path, jsonl(tmp_path / "all.jsonl", long))["task"]["max_length"] >= 128


def test_columns_are_named_where_none_is_known(tmp_path):
    data = jsonl(tmp_path / "all.jsonl", [{"a": f"who {i}?", "b": f"ada {i}"} for i in range(40)])
    with pytest.raises(FedloomError, match=r"line 1: of the columns a, b none .* --column instruction=COLUMN"):
        written(tmp_path, data)
    named = written(tmp_path, data, columns={"instruction": "a", "output": "b"})
    assert named["data"]["columns"] == {"instruction": "a", "output": "b"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.jsonl"], "no such file"),
        (["all.jsonl", "--client", "nobody"], "not every record has 'nobody'"),
        (["all.jsonl", "--column", "instruction"], "allowed is NAME=COLUMN"),
        (["all.jsonl", "--column", "colour=instruction"], "are those of no form"),
        (["all.jsonl", "no/such/model"], "no/such/model"),
        (["all.jsonl", "--out", "all.jsonl"], "exists"),
        (["few.jsonl"], "few.jsonl"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(tmp_path, monkeypatch, words, said, capsys):
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "all.jsonl", pairs("ada", 40))
    (tmp_path / "few.jsonl").write_text("")
    code, told = fedloom(monkeypatch, "init", *words), capsys.readouterr().err
    assert code == 2 and said in told and told.count("\n") == 1
    assert not (tmp_path / "run.toml").exists()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Frage;Antwort", "columns of CSV are divided by commas"),
        ("question_answer,x", "none is known"),
        ("question_id,answer", "none is known"),
    ],
)
def test_columns_that_only_seem_to_be_known_are_refused(tmp_path, header, said):
    row = ",".join("ab"[: header.count(",") + 1])
    (tmp_path / "odd.csv").write_text(f"{header}\n" + f"{row}\n" * 9)
    with pytest.raises(FedloomError, match=said):
        written(tmp_path, tmp_path / "odd.csv")


def test_a_column_that_no_file_has_is_refused(tmp_path):
    data = jsonl(tmp_path / "all.jsonl", pairs("ada", 40))
    with pytest.raises(FedloomError, match=r"--column instruction=instructio: no file has that column"):
        written(tmp_path, data, columns={"instruction": "instructio"})


def test_few_records_and_one_owner_are_looked_at_too(tmp_path):
    table = written(tmp_path, jsonl(tmp_path / "all.jsonl", pairs("ada", 3, source="s")))
    assert (table["clients"], table["partition"]) == (3, {"name": "iid"})


def test_a_column_name_cannot_break_out_of_its_comment(tmp_path):
    odd = 'hospital\n[privacy]\nname = "none"'
    data = jsonl(tmp_path / "all.jsonl", [one | {odd: name} for name in ("a", "b") for one in pairs(name)])
    table = written(tmp_path, data)
    assert table["data"]["tags"] == {"client": odd} and "privacy" not in table
