"""A node's journal and ledger: a job is answered once, and no line can be changed unseen."""

import json

import pytest
import torch

from fedloom.base.errors import DataError, RunError
from fedloom.network.jobs import JobFrame
from fedloom.network.journal import Answer, Journal
from fedloom.network.node_ledger import NodeLedger
from fedloom.network.pieces import Piece


def a_job(round=0, lr=0.5, client="north"):
    return JobFrame("ab", client, round, lr, Piece("0" * 64, 12))


def an_answer(packet=b"row"):
    piece = Piece.of(packet)
    return Answer({"kind": "report", "digest": piece.digest, "size": piece.size}, packet)


def memory(value):
    return {"control": {"": torch.full((3,), float(value))}}


def test_the_same_job_gets_the_stored_answer(tmp_path):
    journal = Journal(tmp_path)
    assert journal.answered(a_job()) is None
    journal.keep(a_job(), an_answer(), memory(1))
    assert Journal(tmp_path).answered(a_job()) == an_answer()
    assert journal.answered(a_job(round=1)) is None and journal.answered(a_job(client="south")) is None


def test_another_job_for_an_answered_round_is_refused(tmp_path):
    Journal(tmp_path).keep(a_job(), an_answer(), {})
    with pytest.raises(DataError, match="another job was answered already"):
        Journal(tmp_path).answered(a_job(lr=0.25))


def test_a_client_remembers_the_newest_round_before(tmp_path):
    journal = Journal(tmp_path)
    for round in (0, 3, 12):
        journal.keep(a_job(round), an_answer(), memory(round))
    found = {round: float(journal.memory("north", round)["control"][""][0]) for round in (1, 3, 4, 12, 13)}
    assert found == {1: 0.0, 3: 0.0, 4: 3.0, 12: 3.0, 13: 12.0}
    assert journal.memory("north", 0) == {} and journal.memory("south", 5) == {}
    assert (journal.last_round("north"), journal.last_round("south")) == (12, -1)


def test_an_answer_that_was_not_written_to_its_end_is_none(tmp_path):
    journal = Journal(tmp_path)
    journal.keep(a_job(), an_answer(), memory(1))
    next(tmp_path.glob("answers/*/*.json")).unlink()
    assert journal.answered(a_job()) is None


@pytest.mark.parametrize("damage", ["json", "bin", "no bin"])
def test_a_damaged_answer_is_refused(tmp_path, damage):
    Journal(tmp_path).keep(a_job(), an_answer(), {})
    path = next(tmp_path.glob(f"answers/*/*.{damage.split()[-1]}"))
    path.unlink() if damage == "no bin" else path.write_text("damaged")
    with pytest.raises(RunError, match="restore it from a copy"):
        Journal(tmp_path).answered(a_job())


def test_uses_are_counted_and_cannot_be_lost_unseen(tmp_path):
    journal = Journal(tmp_path)
    assert journal.uses() == {}
    journal.count("north", 3)
    journal.count("north", 2)
    journal.count("south", 1)
    journal.keep(a_job(), an_answer(), {})
    assert Journal(tmp_path).uses() == {"north": 5, "south": 1}
    text = (tmp_path / "uses.json").read_text()
    (tmp_path / "uses.json").write_text(text.replace('"north": 5', '"north": 1'))
    with pytest.raises(RunError, match="its hash does not fit"):
        journal.uses()


def test_parameters_that_were_sent_come_back(tmp_path):
    journal = Journal(tmp_path)
    assert journal.anchor() is None
    journal.keep_anchor(torch.arange(4.0))
    assert torch.equal(Journal(tmp_path).anchor(), torch.arange(4.0))


def a_ledger(folder):
    ledger = NodeLedger(folder / "ledger.jsonl")
    for round in range(4):
        ledger.append("report", round=round, bytes=100)
    return ledger


def test_a_ledger_is_a_chain(tmp_path):
    records = a_ledger(tmp_path).records()
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert [record["before"] for record in records[1:]] == [record["sha256"] for record in records[:-1]]


@pytest.mark.parametrize(
    ("line", "damage"),
    [
        (2, lambda lines: [*lines[:1], lines[1].replace("100", "10"), *lines[2:]]),
        (2, lambda lines: lines[:1] + lines[2:]),
        (1, lambda lines: lines[1:]),
        (2, lambda lines: [lines[0], lines[2], lines[1], lines[3]]),
        (3, lambda lines: [*lines[:2], "{}", *lines[3:]]),
        (3, lambda lines: [*lines[:2], "torn", *lines[3:]]),
    ],
)
def test_an_edited_line_is_found(tmp_path, line, damage):
    ledger = a_ledger(tmp_path)
    ledger.path.write_text("\n".join(damage(ledger.path.read_text().splitlines())) + "\n")
    with pytest.raises(RunError, match=f"line {line} is not what this node wrote"):
        ledger.records()


def test_a_line_that_a_kill_has_torn_is_cut_off_by_the_next_one(tmp_path):
    ledger = a_ledger(tmp_path)
    with ledger.path.open("a") as file:
        file.write('{"time": "half')
    ledger.append("report", round=9)
    assert [record["round"] for record in ledger.records()] == [0, 1, 2, 3, 9]
    assert json.loads(ledger.path.read_text().splitlines()[-1])["round"] == 9
