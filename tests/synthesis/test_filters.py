"""What the filters keep, a crafted candidate for each reason."""

import pytest

from fedloom.base.plugin import lookup, names
from fedloom.contracts.synthesis import Around, Candidate, Filter, PoolRow
from fedloom.synthesis.chain import counts, judged

ROW = PoolRow(
    id="p1",
    document="The baker Oren sells plums in Tavik.",
    instruction="What does the baker Oren sell in Tavik?",
    response="He sells plums.",
)
DOCUMENT = "The nurse Mira gives 20 mg of zolin to patients in Lodz every morning, and 15 mg at night."
GOOD = ("How much zolin do patients get each morning?", "They get 20 mg of zolin every morning.")


def candidate(instruction=GOOD[0], response=GOOD[1], name="d0", document=DOCUMENT):
    return Candidate(id=name, document=document, instruction=instruction, response=response, examples=(ROW,))


def verdicts(name, *candidates, **settings):
    return lookup(Filter, name)(**settings)([*candidates], Around([ROW]))


def reason(name, *args, **settings):
    return verdicts(name, candidate(*args), **settings)[0].reason


CASES = {
    "no_pair": ("form", ("", ""), {}),
    "instruction_length": ("form", ("Why so", "Because."), {}),
    "response_length": ("form", (GOOD[0], "word " * 1025), {}),
    "fence_left": ("form", (GOOD[0], "See </document ab12> here"), {}),
    "copied_instruction": ("copy", ("What does the baker Oren sell, in Tavik?", "Zolin."), {}),
    "copied_response": ("copy", (GOOD[0], "He sells plums"), {}),
    "ungrounded": ("grounding", (GOOD[0], "Submarines dive through purple oceans."), {}),
    "foreign_number": ("grounding", (GOOD[0], "They get 25 mg of zolin."), {}),
    "verbatim": ("leakage", (GOOD[0], "gives 20 mg of zolin to patients"), {"most_words": 4}),
    "personal": ("leakage", (GOOD[0], "Ask mira.k@hospital.example about it."), {"personal": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_reason_is_given_for_its_own_fault(name):
    step, texts, settings = CASES[name]
    assert reason(step, *texts, **settings) == name
    assert name in lookup(Filter, step).reasons
    assert reason(step, **settings) in ("", "verbatim")


def test_every_reason_of_every_filter_is_produced_by_a_test():
    known = {name for step in names(Filter) for name in lookup(Filter, step).reasons}
    assert known == {*CASES, "duplicate", "low_quality", "not_scored"}


def test_a_near_copy_of_an_example_is_a_copy_and_a_like_question_is_none():
    assert reason("copy", "What does the baker Oren sell in Tavik now?") == "copied_instruction"
    assert reason("copy", "What does the baker Oren sell in Tavik now?", overlap=1.0) == ""
    assert reason("copy", "What does the nurse give?") == ""


def test_numbers_that_follow_from_the_document_may_be_allowed():
    assert reason("grounding", GOOD[0], "They get 35 mg of zolin.") == "foreign_number"
    assert reason("grounding", GOOD[0], "They get 35 mg of zolin.", sums=True) == ""
    assert reason("grounding", GOOD[0], "They get 36 mg of zolin.", sums=True) == "foreign_number"


def test_a_wrong_response_made_of_the_documents_words_looks_grounded():
    assert reason("grounding", GOOD[0], "They get 15 mg of zolin every morning.") == ""


def test_duplicates_go_and_the_first_stays():
    again = candidate("How much zolin do the patients get each morning?", "Some zolin.", "d1")
    other = candidate("Where does the nurse work?", "In Lodz.", "d2")
    found = verdicts("duplicate", candidate(), again, other, candidate(name="d3"))
    assert [one.reason for one in found] == ["", "duplicate", "", "duplicate"]


def test_the_longest_shared_run_is_measured():
    (found,) = verdicts("leakage", candidate(response="gives 20 mg of zolin to patients, they say"))
    assert (found.reason, found.score) == ("", 7.0)
    (whole,) = verdicts("leakage", candidate(response=DOCUMENT))
    assert whole.score == len(DOCUMENT.replace(",", "").split())


def test_quality_drops_the_share_with_the_least_gain():
    pairs = [(f"Say the word {word}.", word) for word in ("bread", "plums", "figs", "salt")]
    candidates = [candidate(*pair, name=str(at)) for at, pair in enumerate(pairs)]
    found = verdicts("quality", *candidates, drop=0.5)
    scores = [one.score for one in found]
    assert all(score is not None for score in scores)
    assert [one.reason for one in found].count("low_quality") == 2
    assert {one.score for one in found if one.reason} == set(sorted(scores)[:2])
    assert all(not one.reason for one in verdicts("quality", *candidates, drop=0.0))


def test_a_pair_that_no_loss_can_be_taken_of_is_not_scored():
    long = candidate(response="zolin " * 3000)
    assert verdicts("quality", long, candidate())[0].reason == "not_scored"


def test_a_chain_stops_at_the_first_reason_and_counts_add_up():
    candidates = [
        candidate(name="kept"),
        candidate("", "", "lost"),
        candidate("", "", "no pair"),
        candidate(GOOD[0], "Submarines dive through purple oceans.", "elsewhere"),
        candidate(name="again"),
    ]
    steps = [lookup(Filter, name)() for name in ("form", "grounding", "duplicate")]
    found = judged(candidates, {"lost": "too_long"}, steps, Around([ROW]))
    assert [one.reason for one in found] == ["", "too_long", "no_pair", "ungrounded", "duplicate"]
    assert [list(one.verdicts) for one in found][1:4] == [["generation"], ["form"], ["form", "grounding"]]
    told = counts(found)
    assert (
        told["accepted"] + sum(n for name, n in told.items() if name.startswith("rejected_")) == told["generated"] == 5
    )


def test_an_empty_chain_keeps_everything():
    assert counts(judged([candidate()], {}, [], Around([ROW]))) == {"generated": 1, "accepted": 1}


@pytest.mark.parametrize("name", names(Filter))
def test_filters_that_look_at_other_candidates_say_so(name):
    step = lookup(Filter, name)(**({"drop": 0.7} if name == "quality" else {}))
    pairs = [GOOD, GOOD, ("Where does the nurse Mira work?", "In Lodz."), ("Who gives zolin to patients?", "Mira.")]
    candidates = [candidate(*pair, name=str(at)) for at, pair in enumerate(pairs)]
    alone = [step([one], Around([ROW]))[0].reason for one in candidates]
    together = [one.reason for one in step(candidates, Around([ROW]))]
    assert (alone == together) == (not step.brings_in())
