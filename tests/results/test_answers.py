"""Answers side by side: which questions, whose models, and what has no text."""

from dataclasses import replace

import pytest

from fedloom.base.errors import RunError
from fedloom.base.mean import Mean
from fedloom.evaluation.held_out import Scored
from fedloom.results.answers import answer_lines, side_by_side
from fedloom.results.outcome import Outcome
from fedloom.results.show import compare


def said(index, answer, owner="", prompt="", **tags):
    return Scored("test", index, owner, tags, {"f1": Mean(1.0, 1.0)}, prompt or f"What is {index}?", "right", answer)


def run(label, final, base=(), seed=0):
    base = base or [replace(one, prediction="untuned", owner="") for one in final]
    return Outcome(f"runs/{label}{seed}", label, seed, 50, True, {"base": tuple(base), "final": tuple(final)}, {}, {})


SHARED = run("fedavg", [said(at, f"shared {at}", client="a") for at in range(6)])
LOCAL = run("local", [said(at, f"{owner}'s {at}", owner, client="a") for owner in "abc" for at in range(6)])


def test_questions_are_spread_over_the_test_and_every_model_answers():
    found = side_by_side(compare([SHARED, LOCAL]), 3)
    assert [one["index"] for one in found] == [0, 2, 4]
    assert found[1] == {
        "index": 2,
        "question": "What is 2?",
        "reference": "right",
        "answers": {"base": "untuned", "fedavg": "shared 2", "local": "b's 2"},
    }


def test_more_questions_than_there_are_give_all_and_one_run_is_enough():
    assert [one["index"] for one in side_by_side(compare([SHARED]), 99)] == list(range(6))


def test_of_several_seeds_the_first_answers():
    other = run("fedavg", [said(at, "of another seed", client="a") for at in range(6)], seed=1)
    assert side_by_side(compare([SHARED, other]), 1)[0]["answers"]["fedavg"] == "shared 0"


def test_each_answer_is_a_line():
    told = answer_lines(side_by_side(compare([run("fedavg", [said(7, "one\n two"), said(9, " ")])]), 2))
    assert told[:4] == ["\nquestion 7: What is 7?", "  reference: right", "  base: untuned", "  fedavg: one two"]
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
