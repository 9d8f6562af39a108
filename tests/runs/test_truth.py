"""What a simulation knows of its own data lies in `truth.json`, and nothing that makes a result knows of it."""

import json
from collections import Counter

import pytest

from fedloom import api
from fedloom.base.errors import MissingFileError, RunError
from fedloom.contracts.examples import text_id
from fedloom.data.sources.world import WorldSource
from fedloom.results.truth import read_truth
from fedloom.runs.tuning import read_run
from fedloom.world import World
from support import numbers
from support.tools import tool

DATA = {"name": "points", "n_clients": 4}
TABLE = numbers.TABLE | {"data": DATA, "clients_per_round": 3, "audit_log": True, "prepare": ["unchanged"]}
TRUTH = {"malicious": ["c0"], "wrong": {"c0": ["a", "b"], "c1": []}}
PERMUTED = {"malicious": ["c3"], "wrong": {"c1": ["a", "b"], "c0": []}}


def ran(folder, monkeypatch, truth):
    monkeypatch.setattr(numbers.Points, "truth", lambda self: truth)
    list(api.start(read_run(TABLE), folder))
    return folder


def test_permuting_the_truth_changes_no_other_byte_of_a_run(tmp_path, monkeypatch):
    one, other = (ran(tmp_path / str(at) / "run", monkeypatch, truth) for at, truth in enumerate((TRUTH, PERMUTED)))
    assert read_truth(one) == TRUTH and read_truth(other) == PERMUTED
    assert list(tool("same_runs").differences(one, other)) == ["truth.json: differs"]


def test_a_run_goes_on_as_before_whatever_has_become_of_the_truth(tmp_path, monkeypatch):
    whole = ran(tmp_path / "whole" / "run", monkeypatch, TRUTH)
    events = api.start(read_run(TABLE), tmp_path / "stopped" / "run")
    for _ in range(4):
        next(events)
    events.close()
    (tmp_path / "stopped" / "run" / "truth.json").write_text("nothing")
    list(api.resume(tmp_path / "stopped" / "run")[1])
    assert list(tool("same_runs").differences(whole, tmp_path / "stopped" / "run")) == ["truth.json: differs"]


def test_data_without_a_truth_leave_no_file(tmp_path):
    list(api.start(read_run(TABLE), tmp_path / "run"))
    assert not (tmp_path / "run" / "truth.json").exists()
    with pytest.raises(MissingFileError, match=r"truth\.json: missing; the data of the run are no simulation"):
        read_truth(tmp_path / "run")


def test_a_damaged_truth_is_refused(tmp_path):
    (tmp_path / "truth.json").write_text("{")
    with pytest.raises(RunError, match=r"truth\.json: is no JSON"):
        read_truth(tmp_path)


def world_clients(**settings):
    world = World(0, 12, 12)
    return world.clients(6, records=40, private_share=0.6, knowers_share=0.2, **settings)


@pytest.mark.parametrize("harmful", ["refused", "answered"])
def test_the_truth_of_the_world_is_which_records_it_spoilt_and_no_record_tells(harmful):
    source = WorldSource(n_clients=6, harmful=harmful)
    spoilt = Counter(c.name for c in world_clients() for record in c.train if record.tags["quality"] == "wrong")
    wrong = source.truth()["wrong"]
    assert {client: len(ids) for client, ids in wrong.items() if ids} == spoilt and len(spoilt) > 0
    records = source.load()["train"]
    assert {name for ids in wrong.values() for name in ids} <= {text_id(record) for record in records}
    assert not [record for record in records if "quality" in record.tags]


def test_the_truth_of_notes_is_what_each_tells():
    told = WorldSource(n_clients=6, form="note").truth()["told"]
    for client in world_clients():
        answers = {fact.id: fact.answer for fact in client.facts}
        assert told[client.name] == {
            text_id(note): {fact: answers[fact] for fact in note.tags["facts"].split()} for note in client.notes
        }
        for note in client.notes:
            assert sum(answer in note.text for answer in told[client.name][text_id(note)].values()) > 0


def test_preferences_have_no_truth():
    assert WorldSource(n_clients=3, form="preference").truth() == {}


def test_a_run_over_the_world_writes_its_truth_and_the_partition_card_does_not_tell_it(tmp_path):
    data = {"name": "world", "n_clients": 3, "records": 6, "test_per_task": 1, "domains": ["medicine"]}
    small = {"rounds": 1, "local": {"steps": 1, "batch": 2}, "evaluation": {"metrics": [], "limit": 1}}
    events = api.start(read_run({"data": data} | small), tmp_path / "run")
    next(events)
    events.close()
    assert set(read_truth(tmp_path / "run")["wrong"]) == {"c00", "c01", "c02"}
    assert "quality" not in json.loads((tmp_path / "run" / "partition.json").read_text())["tags"]
