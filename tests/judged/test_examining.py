"""The driver of examinations: what is asked in which order, what is counted, how models are compared."""

import math
import statistics
from collections import Counter

import pytest

from fedloom.base.errors import CompletionError, ConfigError, DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup
from fedloom.contracts.evaluation import Answered, Completion, Exam, Question
from fedloom.judged import grading as examining
from fedloom.judged.grading import Examination, Graded
from support.exam_files import SHIPPED


class Stub:
    """Answers by a function of the prompt's last text, and remembers what it was asked."""

    def __init__(self, say=lambda text: "fine"):
        self.say, self.calls = say, []

    def __call__(self, requests):
        self.calls.append(list(requests))
        return [Completion(self.say(prompt[-1].text)) for prompt, _ in requests]


def examine(exam, candidate, *, other=None, judge=None, seeds=(0,)):
    """Every question graded, once for each seed."""
    found = []
    for seed in seeds:
        mine = examining.answered_by(candidate, exam, seed=seed)
        others = examining.answered_by(other, exam, seed=seed) if other else ()
        found += examining.graded_by(judge, exam, mine, others, seed=seed)
    return found


def mt_bench():
    files = {"path": "two_turns.jsonl", "references": "two_turns_answers.jsonl"}
    return lookup(Exam, "mt_bench")(**{key: str(SHIPPED / name) for key, name in files.items()})


def world(**fields):
    return lookup(Exam, "world_exam")(**{"test": "safety", "per_task": 4, **fields})


def graded(values, *, exam="e", score="s", tags=(), seed=0, weight=1.0):
    """Graded questions with these scores; None is a verdict that says nothing."""
    tags = tags or [{}] * len(values)
    return [
        Graded(
            exam,
            index,
            seed,
            Answered(Question(str(index), ("?",), tags=tags[index]), ("!",)),
            {},
            {
                score: Mean() if value is None else Mean(value * weight, weight),
                "unparsed": Mean(float(value is None), 1.0),
            },
        )
        for index, value in enumerate(values)
    ]


# ---------------------------------------------------------------------------------------------------------------- order


def test_second_turn_is_asked_after_the_first_answer():
    candidate = Stub(lambda text: f"re: {text}")
    examine(world(test="talk", per_task=2), candidate)
    second = candidate.calls[1][0][0]
    assert [turn.role for turn in second] == ["user", "assistant", "user"]
    assert second[1].text == f"re: {second[0].text}"


def test_each_category_is_answered_at_its_temperature():
    candidate = Stub()
    examine(mt_bench(), candidate, judge=Stub(lambda _: "[[5]]"))
    counts = [Counter(sampling.temperature for _, sampling in requests) for requests in candidate.calls]
    assert counts == [{0.7: 10, 0.1: 10, 0.0: 20}] * 2


def test_greedy_answers_have_no_seed():
    candidate = Stub()
    examine(mt_bench(), candidate, judge=Stub(lambda _: "[[5]]"), seeds=(3,))
    found = {(sampling.temperature, sampling.seed) for requests in candidate.calls for _, sampling in requests}
    assert found == {(0.7, 3), (0.1, 3), (0.0, 0)}


def test_nobody_judges_where_nothing_is_requested(tmp_path):
    from support.exam_files import exams

    judge = Stub()
    examine(exams(tmp_path)["over_refusal"], Stub(), judge=judge)
    assert judge.calls == []


def test_exam_that_scores_by_itself_needs_no_judge():
    found = examine(world(), Stub())
    assert set(found[0].scores) == {"correct"}


def test_judge_adds_its_grade_to_an_exam_that_needs_none():
    found = examine(world(), Stub(), judge=Stub(lambda _: "[[4]]"))
    assert found[0].scores["grade"].value == 4


def test_every_question_is_graded_once_for_each_seed():
    found = examine(world(), Stub(), seeds=(0, 1))
    assert len({(one.seed, one.index) for one in found}) == len(found) == 24


def test_second_model_answers_the_same_questions():
    candidate, other = Stub(lambda _: "mine"), Stub(lambda _: "theirs")
    judge = Stub(lambda text: "[[A]]" if text.index("mine") < text.index("theirs") else "[[B]]")
    found = examine(lookup(Exam, "pairwise")(of=world()), candidate, other=other, judge=judge)
    assert candidate.calls == other.calls
    assert {one.scores["win_rate"].value for one in found} == {1.0}


def test_judge_who_prefers_what_stands_first_wins_nobody():
    judge = Stub(lambda _: "[[A]]")
    found = examine(lookup(Exam, "pairwise")(of=world()), Stub(), other=Stub(), judge=judge)
    assert {(one.scores["win_rate"].value, one.scores["consistent"].value) for one in found} == {(0.5, 0.0)}


# ------------------------------------------------------------------------------------------------------------- refusals


def test_comparison_without_a_second_model_is_refused():
    with pytest.raises(ConfigError, match="pairwise: compares two models, found one; give the second by --against"):
        examine(lookup(Exam, "pairwise")(of=world()), Stub(), judge=Stub())


def test_exam_that_needs_a_judge_refuses_to_go_without():
    with pytest.raises(ConfigError, match="mt_bench: needs a judge, found none"):
        examine(mt_bench(), Stub())


def test_examination_that_lacks_a_judge_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="judge: missing, and the exam 'mt_bench' needs one"):
        Examination(exams=(mt_bench(),))


@pytest.mark.parametrize(
    "fields", [{"exams": ()}, {"exams": (world(),), "seeds": ()}, {"exams": (world(),), "seeds": (1, 1)}]
)
def test_examination_of_nothing_is_refused(fields):
    with pytest.raises(ConfigError, match="name one of each at least, and no seed twice"):
        Examination(**fields)


def test_question_that_occurs_twice_is_refused(tmp_path):
    from support.exam_files import as_lines, write

    record = {"question_id": 7, "turns": ["a"], "category": "generic"}
    exam = lookup(Exam, "vicuna")(path=write(tmp_path / "q.jsonl", as_lines([record, record])))
    with pytest.raises(DataError, match="vicuna: found question '7' twice"):
        examining.questions_of(exam)


def test_failure_of_the_judge_is_told():
    def refuse(_):
        raise CompletionError("no answer")

    with pytest.raises(CompletionError, match="no answer"):
        examine(mt_bench(), Stub(), judge=Stub(refuse))


def test_exams_of_one_kind_have_labels_of_their_own():
    assert examining.labels([world(), mt_bench(), world()]) == ["world_exam", "mt_bench", "world_exam_2"]


# ---------------------------------------------------------------------------------------------------------- unanswered


class Refusing(Stub):
    """Refuses for good the prompts that hold a text."""

    def __init__(self, holding, say=lambda text: "fine"):
        super().__init__(say)
        self.holding = holding

    def __call__(self, requests):
        found = super().__call__(requests)
        texts = [prompt[-1].text for prompt, _ in requests]
        return [
            Completion("", refused="too long") if self.holding in text else answer
            for text, answer in zip(texts, found, strict=True)
        ]


def test_turn_after_a_refused_one_is_not_asked():
    exam = mt_bench()
    candidate = Refusing(exam.questions()[0].turns[0])
    found = examining.answered_by(candidate, exam)
    assert (len(candidate.calls[0]), len(candidate.calls[1])) == (40, 39)
    assert (found[0].refused, found[0].answers) == ("too long", ("", ""))


def test_judge_is_asked_nothing_of_a_refused_answer():
    exam, judge = mt_bench(), Stub(lambda _: "[[5]]")
    found = examine(exam, Refusing(exam.questions()[0].turns[1]), judge=judge)
    assert len(judge.calls[0]) == 2 * 39
    assert set(found[0].scores) == {"unanswered"} and found[0].as_record()["refused"] == "too long"


def test_refused_verdict_is_scored_nowhere_and_not_called_unparsed():
    exam = mt_bench()
    judge = Refusing(exam.questions()[0].turns[1], lambda _: "[[5]]")
    scores = examine(exam, Stub(), judge=judge)[0].scores
    assert (scores["turn_1"], scores["turn_2"]) == (Mean(5.0, 1.0), Mean())
    assert (scores["unparsed"], scores["unanswered"]) == (Mean(0.0, 1.0), Mean(1.0, 2.0))


def test_answer_of_either_model_that_is_refused_makes_no_game():
    exam, judge = lookup(Exam, "pairwise")(of=world()), Stub(lambda _: "[[A]]")
    text = exam.questions()[0].turns[0]
    found = examine(exam, Stub(), other=Refusing(text), judge=judge)
    assert len(judge.calls[0]) == 2 * (len(found) - 1) and found[0].scores == {"unanswered": Mean(1.0, 2.0)}


def test_refused_questions_are_in_no_mean():
    exam = world()
    text = exam.questions()[0].turns[0]
    found = examining.rows(examine(exam, Refusing(text)), resamples=20)
    n_asked = len(exam.questions())
    assert {(row.score, row.interval.n) for row in found if not row.group} == {("correct", n_asked - 1)}


def test_refused_answers_are_counted_and_warned_of():
    exam = world()
    found = examine(exam, Refusing(exam.questions()[0].turns[0]))
    assert examining.unanswered(found) == {"world_exam": 1}
    assert any(
        line.startswith("world_exam: 1 answers or verdicts are unanswered") for line in examining.warnings(found)
    )


# ----------------------------------------------------------------------------------------------------------- aggregates


def test_unparsed_verdict_is_no_minus_one():
    row = examining.rows(graded([8, None, 6]), resamples=50)[0]
    assert (row.interval.value, row.interval.n) == (7, 2)


def test_unparsed_verdicts_are_counted_apart():
    count = examining.unparsed(graded([8, None, 6]))["e"]
    assert (count.total, count.weight) == (1, 3)


def test_score_without_any_verdict_has_no_row():
    assert examining.rows(graded([None, None]), resamples=50) == []


def test_standard_error_is_that_of_a_mean():
    values = [float(i % 10) for i in range(400)]
    row = examining.rows(graded(values), resamples=2000)[0]
    assert row.interval.standard_error == pytest.approx(statistics.stdev(values) / 20, rel=0.1)


def test_one_question_has_neither_interval_nor_standard_error():
    interval = examining.rows(graded([3.0]), resamples=50)[0].interval
    assert all(map(math.isnan, (interval.low, interval.high, interval.standard_error)))


def test_interval_covers_the_mean_and_not_everything():
    interval = examining.rows(graded([float(i % 10) for i in range(400)]), resamples=500)[0].interval
    assert 4.1 < interval.low < 4.5 < interval.high < 4.9


def test_languages_count_alike_in_their_mean():
    tags = [{"language": "en"}] * 3 + [{"language": "te"}]
    found = {row.group: row.interval.value for row in examining.rows(graded([4, 5, 6, 1], tags=tags), resamples=50)}
    assert found == {"": 4.0, "language: en": 5.0, "language: te": 1.0, "mean over languages": 3.0}


def test_unparsed_verdict_does_not_shift_the_mean_over_languages():
    tags = [{"language": "en"}] * 3 + [{"language": "te"}]
    found = examining.rows(graded([4, None, 6, 1], tags=tags), resamples=50)
    assert {row.group: row.interval.value for row in found}["mean over languages"] == 3.0


def test_categories_have_rows_of_their_own():
    found = examine(world(test="public", per_task=1), Stub())
    groups = {row.group for row in examining.rows(found, resamples=20)}
    assert groups == {"", *(f"category: {name}" for name in ("general", "medicine", "finance", "maths", "safety"))}


def test_seeds_do_not_count_as_questions():
    both = graded([1, 3], seed=0) + graded([5, 7], seed=1)
    row = examining.rows(both, resamples=50)[0]
    assert (row.interval.value, row.interval.n) == (4, 2)


# ---------------------------------------------------------------------------------------------------------- comparisons


BETTER, WORSE = [3.0, 4.0, 6.0, 5.0, 7.0] * 2, [2.0, 3.0, 4.0, 4.0, 5.0] * 2


def test_model_that_is_better_everywhere_is_called_better():
    found = examining.differences(graded(BETTER), graded(WORSE), resamples=200)
    assert [one.verdict for one in found] == ["better"]


def test_model_that_is_worse_everywhere_is_called_worse():
    found = examining.differences(graded(WORSE), graded(BETTER), resamples=200)
    assert [one.verdict for one in found] == ["worse"]


def test_nothing_is_better_when_the_interval_holds_zero():
    mine, others = graded([5.0, 1.0, 6.0, 2.0] * 3), graded([4.0, 3.0, 4.0, 2.5] * 3)
    found = examining.differences(mine, others, resamples=200)[0]
    assert found.interval.low < 0 < found.interval.high and found.verdict == "not told apart"


def test_equal_models_are_not_told_apart():
    found = examining.differences(graded(BETTER), graded(BETTER), resamples=50)[0]
    assert (found.interval.low, found.interval.high, found.verdict) == (0, 0, "not told apart")


def test_nothing_is_better_on_a_handful_of_questions():
    found = examining.differences(graded(BETTER[:9]), graded(WORSE[:9]), resamples=50)[0]
    assert found.interval.low > 0 and found.verdict == "not told (too few questions)"


@pytest.mark.parametrize(("rate", "verdict"), [(1.0, "better"), (0.0, "worse"), (0.5, "not told apart")])
def test_win_rate_is_held_against_one_half(rate, verdict):
    found = examining.beyond_half(examining.rows(graded([rate] * 12, score="win_rate"), resamples=50))
    assert [one.verdict for one in found] == [verdict]


def test_comparison_is_paired():
    mine, others = graded([float(i % 10) + 0.2 for i in range(60)]), graded([float(i % 10) for i in range(60)])
    interval = examining.differences(mine, others, resamples=200)[0].interval
    assert interval.high - interval.low < 1e-9


def test_question_without_a_verdict_on_one_side_is_compared_on_neither():
    found = examining.differences(graded([5.0, None, 3.0]), graded([4.0, 9.0, 2.0]), resamples=50)[0]
    assert (found.interval.value, found.interval.n) == (1, 2)


def test_few_questions_are_warned_of():
    assert examining.warnings(graded([1.0] * 80))[0].startswith("e: 80 questions, fewer than 200")


def test_many_questions_are_not():
    assert examining.warnings(graded([1.0] * 200)) == []


def test_verdicts_that_say_nothing_are_warned_of():
    assert examining.warnings(graded([1.0, None] * 100)) == [
        "e: 100 of 200 verdicts could not be parsed and are scored nowhere."
    ]


def test_hash_of_the_questions_knows_every_reference():
    one, two = (Question("1", ("a",), references=(text,)) for text in "bc")
    assert examining.questions_sha256([one]) != examining.questions_sha256([two])


def test_record_is_an_evaluated_example():
    from fedloom.evaluation.held_out import Scored

    one = examine(world(), Stub())[0]
    scored = Scored.from_record(one.as_record())
    assert (scored.set, scored.tags["category"], scored.scores) == ("world_exam", "safety", one.scores)
