"""What every exam must hold, shipped or registered besides."""

import hashlib
import pickle

import pytest

from fedloom.base import config
from fedloom.base.plugin import names
from fedloom.contracts.evaluation import Exam, Question
from fedloom.judged.exams import UNPARSED
from support.exam_files import answered, exams

GOOD = "It is fine. [[harmless]] [[A]] Grade: [[7]]"
WORDS = {"advbench": "[[harmless]]", "pairwise": "[[A]]"}
# Of each exam's version: whoever changes a prompt raises the version, and this entry with it.
PROMPTS = {
    "advbench": (2, "723a1c0c0e21"),
    "mt_bench": (2, "4c4d71677f62"),
    "over_refusal": (2, "792bfceb41f6"),
    "pairwise": (1, "9039284484fd"),
    "quality_judge": (2, "ec0fc1dfd8c0"),
    "ref_judge": (2, "218f59a3249b"),
    "vicuna": (2, "0c321ceebc79"),
    "world_exam": (2, "22434191e304"),
}

pytestmark = pytest.mark.parametrize("name", names(Exam))


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return exams(tmp_path_factory.mktemp("exams"))


@pytest.fixture
def exam(known, name):
    return known[name]


def requests(exam, question, text="some answer"):
    other = answered(question, "other answer") if exam.needs_other else None
    return exam.requests(answered(question, text), other)


def verdicts(exam, question, text):
    return {request.name: text for request in requests(exam, question)}


def test_questions_are_the_same_when_asked_for_again(exam):
    assert exam.questions() == exam.questions()


def test_ids_are_unique(exam):
    ids = [question.id for question in exam.questions()]
    assert len(set(ids)) == len(ids) > 0


def test_no_turn_is_blank(exam):
    assert all(turn.strip() for question in exam.questions() for turn in question.turns)


def test_references_are_none_or_one_for_each_turn(exam):
    assert all(len(q.references) in (0, len(q.turns)) for q in exam.questions())


def test_exam_that_needs_a_judge_asks_it_about_every_answer(exam):
    assert not exam.needs_judge or all(requests(exam, question) for question in exam.questions())


def test_exam_that_scores_by_itself_does(exam):
    question = exam.questions()[0]
    assert exam.needs_judge or sum(mean.weight for mean in exam.scores(answered(question), {}).values()) > 0


def test_request_names_are_unique(exam):
    for question in exam.questions():
        found = [request.name for request in requests(exam, question)]
        assert len(set(found)) == len(found)


def test_requests_end_with_a_turn_of_the_user(exam):
    assert {r.prompt[-1].role for q in exam.questions() for r in requests(exam, q)} <= {"user"}


def test_judge_sees_question_and_answer(exam):
    question = exam.questions()[0]
    for request in requests(exam, question, "an unheard-of answer"):
        shown = request.prompt[-1].text
        assert question.turns[0] in shown and "an unheard-of answer 1" in shown


def test_last_request_shows_all_turns(exam):
    question = exam.questions()[-1]
    asked = requests(exam, question, "an unheard-of answer")
    assert not asked or all(
        f"an unheard-of answer {turn + 1}" in asked[-1].prompt[-1].text for turn in range(len(question.turns))
    )


def test_requests_are_pure(exam):
    question = exam.questions()[0]
    assert requests(exam, question) == requests(exam, question)


def test_scores_are_pure(exam):
    question = exam.questions()[0]
    told = verdicts(exam, question, GOOD)
    assert exam.scores(answered(question), told) == exam.scores(answered(question), dict(told))


def test_garbage_verdicts_are_scored_nowhere(exam):
    question = exam.questions()[0]
    without = {} if exam.needs_judge else exam.scores(answered(question), {})
    scores = exam.scores(answered(question), verdicts(exam, question, "hm"))
    weighty = {name: mean for name, mean in scores.items() if mean.weight and name != UNPARSED}
    assert weighty == dict(without)


def test_garbage_verdicts_are_counted(exam):
    question = exam.questions()[0]
    told = verdicts(exam, question, "hm")
    if told:
        count = exam.scores(answered(question), told)[UNPARSED]
        assert (count.total, count.weight) == (len(told), len(told))


def test_parsed_verdicts_are_counted_as_such(exam, name):
    question = exam.questions()[0]
    told = verdicts(exam, question, WORDS.get(name, "Grade: [[7]]"))
    if told:
        count = exam.scores(answered(question), told)[UNPARSED]
        assert (count.total, count.weight) == (0, len(told))


def test_sampling_asks_for_a_token_at_least(exam):
    assert all(exam.sampling(question).max_new_tokens > 0 for question in exam.questions())


def test_settings_survive_a_run_file(exam):
    assert config.build(type(exam), {k: v for k, v in config.table_of(exam).items() if k != "name"}) == exam


def test_exam_pickles(exam):
    assert pickle.loads(pickle.dumps(exam)) == exam


def test_prompts_are_those_of_the_version(exam, name):
    fixed = [Question("1", ("one?", "two?"), category, ("1", "2")) for category in ("writing", "math")]
    digest = hashlib.sha256(repr([requests(exam, question) for question in fixed]).encode()).hexdigest()[:12]
    assert (exam.version, digest) == PROMPTS[name]
