"""From questions to judged pairs: who is answered, and how answers belong to their questions."""

import pytest

from fedloom.contracts.evaluation import Completion, Sampling
from fedloom.contracts.synthesis import Around, Candidate, Verdict
from fedloom.synthesis.chain import Judged
from fedloom.synthesis.distilling import Answering, Distilled, Question, answered, chosen
from fedloom.synthesis.filters.form import Form
from fedloom.synthesis.questioning import teaching


def question(at, reason=""):
    candidate = Candidate(id=str(at), document="", instruction=f"What is number {at}?", response="")
    return Question(Judged(candidate, {"form": Verdict(reason)}), "sha256:0", 3)


QUESTIONS = [question(0), question(1, "no_pair"), question(2), question(3), question(4, "duplicate")]


@pytest.mark.parametrize("most", [0, 2, 3, 9])
def test_only_what_filters_let_pass_is_answered(most):
    places = chosen(QUESTIONS, most, 0)
    assert set(places) <= {0, 2, 3} and places == sorted(places)
    assert len(places) == (min(most, 3) if most else 3) and places == chosen(QUESTIONS, most, 0)


def answering(samples):
    sampling = Sampling(max_new_tokens=8, temperature=1.0)
    return Answering(teaching=teaching("plain"), sampling=sampling, samples=samples, filters=[Form()], seed=0)


def test_each_question_has_its_own_answers_in_their_order():
    candidates = [QUESTIONS[at].judged.candidate for at in (0, 2)]
    requests = [request for one in candidates for request in answering(3).requests(one)]
    assert len({sampling.seed for _, sampling in requests}) == 3
    texts = [Completion(f"{prompt[-1].text[:-1]} {at}", 2, 1) for at, (prompt, _) in enumerate(requests)]
    found, tokens = answered(candidates, texts, answering(3), Around())
    assert [one.candidate.response for one in found] == ["What is number 0 0", "What is number 2 3"]
    assert found[1].candidate.others == ("What is number 2 4", "What is number 2 5") and tokens == 18


def test_what_was_dropped_and_what_was_left_over_are_told_apart():
    found, tokens = answered([QUESTIONS[0].judged.candidate], [Completion("", refused="gone")], answering(1), Around())
    made = Distilled(QUESTIONS, {0: found[0]}, tokens)
    assert made.pairs == [] and made.counts == {
        "questions": 5,
        "questions_rejected_duplicate": 1,
        "questions_rejected_no_pair": 1,
        "surplus": 2,
        "answers": 1,
        "kept": 0,
        "answers_rejected_refused": 1,
        "question_tokens": 15,
        "answer_tokens": 0,
    }
