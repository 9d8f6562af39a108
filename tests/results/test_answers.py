"""Answers side by side: which questions, whose models, and what has no text."""

import json
from dataclasses import replace

import pytest

from fedloom.base.errors import RunError
from fedloom.base.mean import Mean
from fedloom.evaluation.held_out import Scored
from fedloom.results.answers import answer_lines, side_by_side
from fedloom.results.outcome import Outcome
from fedloom.results.show import compare
from support.command import fedloom
from support.small_runs import small_table, write_records, write_run_file


def said(index, answer, owner="", prompt="", **tags):
    return Scored("test", index, owner, tags, {"f1": Mean(1.0, 1.0)}, prompt or f"What is {index}?", "right", answer)


def run(label, final, base=(), seed=0):
    base = base or [replace(one, prediction="untuned", owner="") for one in final]
    return Outcome(f"runs/{label}{seed}", label, seed, 50, True, {"base": tuple(base), "final": tuple(final)}, {}, {})


SHARED = run("fedavg", [said(at, f"shared {at}", client="a") for at in range(6)])
LOCAL = run("local", [said(at, f"{owner}'s {at}", owner, client="a") for owner in "abc" for at in range(6)])


def test_questions_are_drawn_from_the_test_and_every_model_answers():
    found = side_by_side(compare([SHARED, LOCAL]), 3)
    asked = [one["index"] for one in found]
    assert asked == sorted(set(asked)) and len(asked) == 3
    for one in found:
        base, shared, local = one["answers"].items()
        assert (base, shared) == (("base", "untuned"), ("fedavg", f"shared {one['index']}"))
        owner = local[0].removeprefix("local (").removesuffix(")")
        assert owner in "bc" and local[1] == f"{owner}'s {one['index']}"
        assert (one["question"], one["reference"]) == (f"What is {one['index']}?", "right")


def test_nobody_s_model_answers_that_client_s_own_question():
    local = run("local", [said(at, owner, owner, client="a") for owner in "abc" for at in range(40)])
    answered = {one["answers"].get("local (a)") for one in side_by_side(compare([local]), 40)}
    assert answered == {None}


def test_questions_are_not_all_of_the_source_that_comes_at_every_seventh_place():
    many = run("fedavg", [said(at, "x") for at in range(70)])
    assert len({one["index"] % 7 for one in side_by_side(compare([many]), 10)}) > 3


def test_more_questions_than_there_are_give_all_and_one_run_is_enough():
    assert [one["index"] for one in side_by_side(compare([SHARED]), 99)] == list(range(6))


def test_of_several_seeds_the_first_answers():
    other = run("fedavg", [said(at, "of another seed", client="a") for at in range(6)], seed=1)
    assert side_by_side(compare([SHARED, other]), 1)[0]["answers"]["fedavg"] == "shared 0"


def test_each_answer_is_a_line():
    told = answer_lines(side_by_side(compare([run("fedavg", [said(7, "one\n two"), said(9, " ")])]), 2))
    assert told[:3] == ["", "question 7: What is 7?", "  reference: right"]
    assert told[3:5] == ["  base: untuned", "  fedavg: one two"]
    assert told[-1] == "  fedavg: (nothing)"


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([run("a", [said(0, "x", prompt="sha256:12")])], "runs/a0: holds hashes for texts; allowed are runs with"),
        ([run("a", [replace(said(0, "x"), prompt="")])], "runs/a0: no answers to a common test; give the data a test"),
        ([run("a", [said(0, "x")]), run("b", [said(1, "x")])], "runs/a0: the runs answer no question in common"),
    ],
)
def test_what_cannot_be_read_is_refused(runs, message):
    with pytest.raises(RunError, match=message):
        side_by_side(compare(runs), 2)


def test_answers_to_a_public_test_can_be_read_and_those_of_absent_owners_are_theirs(tmp_path, monkeypatch, capsys):
    write_records(tmp_path / "test.jsonl", clients=1, seed=9)
    made = small_table(tmp_path, rounds=1)
    data = made["data"] | {"test_path": str(tmp_path / "test.jsonl"), "tags": {"domain": "owner"}}
    public = {"data": data, "partition": {"name": "by_key", "tag": "domain"}, "rounds": 1}
    absent = {"evaluation": {"max_new_tokens": 3, "resamples": 20, "absent": ["client3"], "holdout": 0.0}, "rounds": 1}
    for name, changes in (("public", public), ("absent", absent)):
        file = write_run_file(tmp_path, **changes)
        assert fedloom(monkeypatch, "run", file, "--out", tmp_path / name) == 0
    assert "client3 take no part: the test is 9 examples of theirs, 0 more are left out" in capsys.readouterr().out
    assert fedloom(monkeypatch, "compare", tmp_path / "absent", "--answers", 2) == 2
    assert "texts of clients are not written down" in capsys.readouterr().err
    assert fedloom(monkeypatch, "compare", tmp_path / "public", "--answers", 2) == 0
    told = capsys.readouterr().out
    assert told.count("\nquestion ") == 2 and told.count("  reference: ") == 2 and told.count("  FedAvg: ") == 2
    assert fedloom(monkeypatch, "compare", tmp_path / "public", "--answers", 2, "--json") == 0
    read = json.loads(capsys.readouterr().out)["answers"]
    assert [set(one["answers"]) for one in read] == [{"base", "FedAvg"}] * 2
