"""Open-ended examinations: a candidate answers, a judge reads, verdicts become scores with intervals.

Nothing is asked here: `ask` does that, and keeps what was answered, so that the same examination started again asks
only what is missing. A verdict that cannot be parsed is counted and scored nowhere; so is a prompt that can never be
answered, such as one that a judge's server filters, with all that would have followed from it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.mean import Mean, summed
from fedloom.base.plugin import AtLeast, Count, check_ranges
from fedloom.completers.answer_file import Budget
from fedloom.contracts.evaluation import Answered, Completer, Completion, Exam, Prompt, Question, Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.evaluation.held_out import Scored, score_table
from fedloom.evaluation.intervals import Interval, verdict
from fedloom.evaluation.statistics import ScoreTable, bootstrap
from fedloom.judged.exams import UNANSWERED, UNPARSED

__all__ = [
    "Ask",
    "Examination",
    "Graded",
    "Row",
    "answered_by",
    "beyond_half",
    "differences",
    "graded_by",
    "labels",
    "questions_of",
    "questions_sha256",
    "rows",
    "unanswered",
    "unparsed",
    "warnings",
]

Ask = Callable[[Sequence[tuple[Prompt, Sampling]]], Sequence[Completion]]
"""Puts prompts to someone, or finds the answers where they were kept (`completers.answer_file.Asker.ask`)."""

LEAST = 10
"""Questions below which no verdict is given: resampling a handful says little of others, of one nothing at all."""

FEW = 200
"""Questions below which a comparison is warned of: with a standard deviation of 2, grades differ by 0.3 by chance."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What is asked of a model, and who judges."""

    exams: tuple[Exam, ...]
    judge: Completer | None = None
    """Who grades; left out: exams that need nobody."""
    seeds: tuple[Count, ...] = (0,)
    """Seeds of the answers; each question is answered once with each."""
    resamples: AtLeast = 2000
    """Resamples of the bootstrap intervals."""
    cluster: str = "fact"
    """Tag of the questions that stand or fall together; intervals draw them as one."""
    template: Template | None = None
    """How turns become text; a run has its own, which this must equal, and other models need one."""
    budget: Budget = field(default_factory=Budget)
    """What the judge may be asked at most, by all starts of the examination together."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.exams or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                f"exams, seeds: found {len(self.exams)} exams and the seeds {list(self.seeds)}; name one of each at "
                "least, and no seed twice."
            )
        lacking = [exam.name for exam in self.exams if exam.needs_judge and self.judge is None]
        if lacking:
            raise ConfigError(
                f"judge: missing, and the exam '{lacking[0]}' needs one; add a table [judge] that names a completer."
            )


@dataclass(frozen=True)
class Graded:
    """One answered question with its verdicts and scores."""

    exam: str
    index: int
    seed: int
    answered: Answered
    verdicts: Mapping[str, str]
    scores: Mapping[str, Mean]

    @property
    def tags(self) -> dict[str, str]:
        """The question's tags, its id and its category among them."""
        question = self.answered.question
        return {**question.tags, "id": question.id} | ({"category": question.category} if question.category else {})

    def as_record(self) -> dict[str, Any]:
        """Return a JSON record; its keys are those of an evaluated example (`evaluation.Scored`), and some more."""
        question = self.answered.question
        return {
            "set": self.exam,
            "index": self.index,
            "owner": "",
            "tags": self.tags,
            "scores": {name: [mean.total, mean.weight] for name, mean in self.scores.items()},
            "prompt": question.turns[-1],
            "reference": question.references[-1] if question.references else "",
            "prediction": self.answered.answers[-1],
            "seed": self.seed,
            "verdicts": dict(self.verdicts),
        } | ({"refused": self.answered.refused} if self.answered.refused else {})


def labels(exams: Sequence[Exam]) -> list[str]:
    """Return a name for each exam: its own, with a number from the second of its kind on."""
    found: list[str] = []
    for index, exam in enumerate(exams):
        before = sum(other.name == exam.name for other in exams[:index])
        found.append(f"{exam.name}_{before + 1}" if before else exam.name)
    return found


# ------------------------------------------------------------------------------------------------------------- asking


def questions_of(exam: Exam) -> list[Question]:
    """Return the questions of an exam; none, or one of them twice, is refused."""
    questions = list(exam.questions())
    ids = [question.id for question in questions]
    doubled = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if doubled or not questions:
        found = f"question '{doubled[0]}' twice" if doubled else "no question"
        raise DataError(f"{exam.name}: found {found}, allowed are questions with ids of their own; correct the file.")
    return questions


def answered_by(ask: Ask, exam: Exam, *, seed: int = 0) -> list[Answered]:
    """Return the answers to all questions: first turns of all of them, then second ones, and so on.

    Raises what `questions_of` and `ask` raise; it is up to `ask` to keep what was answered until then.
    """
    questions = questions_of(exam)
    samplings = [exam.sampling(question) for question in questions]
    samplings = [replace(one, seed=seed if one.temperature > 0 else 0) for one in samplings]  # greedy has no seed
    found = [Answered(question, ()) for question in questions]
    for turn in range(max(len(question.turns) for question in questions)):
        having = [i for i, one in enumerate(found) if turn < len(one.question.turns) and not one.refused]
        wanted = [(_prompt(questions[index].turns, found[index].answers), samplings[index]) for index in having]
        for index, completion in zip(having, ask(wanted), strict=True):
            told = found[index].answers
            found[index] = replace(found[index], answers=(*told, completion.text), refused=completion.refused)
    missing = [len(one.question.turns) - len(one.answers) for one in found]
    return [replace(one, answers=(*one.answers, *[""] * n)) for one, n in zip(found, missing, strict=True)]


def _prompt(turns: Sequence[str], answers: Sequence[str]) -> Prompt:
    """Return the dialogue up to the first question that has no answer yet."""
    said: list[Turn] = []
    for question, answer in zip(turns, answers, strict=False):
        said += [Turn("user", question), Turn("assistant", answer)]
    return (*said, Turn("user", turns[len(answers)]))


def graded_by(
    ask: Ask | None,
    exam: Exam,
    mine: Sequence[Answered],
    others: Sequence[Answered] = (),
    *,
    label: str = "",
    seed: int = 0,
) -> list[Graded]:
    """Return the answers with verdicts and scores; `ask` puts requests to the judge, None where there is none.

    `others` holds the second model's answers where the exam compares. `label` names the exam, `seed` is that of the
    answers. Raises ConfigError if a judge or the second model is missing, and what `ask` raises.
    """
    label = label or exam.name
    if exam.needs_other and not others:
        raise ConfigError(f"{label}: compares two models, found one; give the second by --against.")
    if exam.needs_judge and ask is None:
        raise ConfigError(f"{label}: needs a judge, found none; add a table [judge] that names a completer.")
    pairs: list[_Pair] = [*zip(mine, others if exam.needs_other else [None] * len(mine), strict=True)]
    verdicts = _verdicts(ask, exam, pairs) if ask else [{} for _ in mine]
    return [
        Graded(label, index, seed, pair[0], _texts(found), _scores(exam, pair, found))
        for index, (pair, found) in enumerate(zip(pairs, verdicts, strict=True))
    ]


_Pair = tuple[Answered, Answered | None]
"""An answer, and the second model's where the exam compares."""


def _refused(pair: _Pair) -> int:
    return sum(bool(one and one.refused) for one in pair)


def _verdicts(ask: Ask, exam: Exam, pairs: Sequence[_Pair]) -> list[dict[str, Completion]]:
    """Return what the judge says of each answer by the names of its requests; of a refused one nothing is asked."""
    wanted = [(i, one) for i, pair in enumerate(pairs) if not _refused(pair) for one in exam.requests(*pair)]
    verdicts: list[dict[str, Completion]] = [{} for _ in pairs]
    told = ask([(request.prompt, exam.judging()) for _, request in wanted]) if wanted else []
    for (index, request), completion in zip(wanted, told, strict=True):
        verdicts[index][request.name] = completion
    return verdicts


def _texts(verdicts: Mapping[str, Completion]) -> dict[str, str]:
    return {name: "" if one.refused else one.text for name, one in verdicts.items()}


def _scores(exam: Exam, pair: _Pair, verdicts: Mapping[str, Completion]) -> Mapping[str, Mean]:
    """Return the scores; a refused verdict is a blank text to the exam, which finds no score in it."""
    if _refused(pair):
        return {UNANSWERED: Mean(float(_refused(pair)), 1.0 + bool(pair[1]))}
    scores = exam.scores(pair[0], _texts(verdicts))
    n_refused = float(sum(bool(one.refused) for one in verdicts.values()))
    count = scores.get(UNPARSED, Mean())
    read = Mean(count.total - n_refused, count.weight - n_refused)
    return {**scores, UNPARSED: read, UNANSWERED: Mean(n_refused, float(len(verdicts)))} if n_refused else scores


# ---------------------------------------------------------------------------------------------------------- aggregates


@dataclass(frozen=True)
class Row:
    """A score over a group of questions, or how much more of it the candidate has than another model has."""

    exam: str
    group: str
    """"" for all questions, else `category: math`, `language: Spanish` or `mean over languages`."""
    score: str
    interval: Interval
    """`n` is the number of questions with a value; one has neither spread nor standard error."""

    @property
    def verdict(self) -> str:
        """Of a difference `better` or `worse` where it excludes 0, else `not told apart`; nothing of few questions."""
        if self.interval.n < LEAST:
            return "not told (too few questions)"
        told = verdict(self.interval)
        return "not told apart" if told == "undecided" else told


def rows(graded: Sequence[Graded], *, resamples: int, cluster: str = "fact") -> list[Row]:
    """Return every score of every exam: over all questions, by category, by language, over languages alike.

    Intervals are drawn over questions, those with one value of the tag `cluster` together, and over seeds where there
    are several. A score without any value, because no verdict could be parsed, has no row.
    """
    found: list[Row] = []
    for exam, group, score, chosen in _groups(graded):
        table = _table(chosen, score, group, cluster)
        if not math.isnan(table.value):
            one = bootstrap(table, resamples=resamples)
            found.append(Row(exam, group, score, one if one.n > 1 else Interval(one.value, math.nan, math.nan, 1)))
    return found


def differences(
    mine: Sequence[Graded], others: Sequence[Graded], *, resamples: int, cluster: str = "fact"
) -> list[Row]:
    """Return the paired differences of two models' scores in all groups; both were asked the same questions.

    Only questions on which both have a value are compared.
    """
    found: list[Row] = []
    beside = {(exam, group, score): chosen for exam, group, score, chosen in _groups(others)}
    for exam, group, score, chosen in _groups(mine):
        both = _paired(chosen, beside.get((exam, group, score), []), score)
        if both[0]:
            one, other = (_table(side, score, group, cluster) for side in both)
            found.append(Row(exam, group, score, bootstrap(one, other, resamples=resamples)))
    return found


def beyond_half(found: Sequence[Row]) -> list[Row]:
    """Return by how much the candidate wins more often than not, from the rows of comparisons."""
    return [
        Row(row.exam, row.group, "win_rate - 1/2", Interval(one.value - 0.5, one.low - 0.5, one.high - 0.5, one.n))
        for row, one in ((row, row.interval) for row in found if row.score == "win_rate")
    ]


def _paired(mine: Sequence[Graded], others: Sequence[Graded], score: str) -> tuple[Sequence[Graded], Sequence[Graded]]:
    def places(side: Sequence[Graded]) -> dict[tuple[int, int], Graded]:
        return {(one.seed, one.index): one for one in side if one.scores.get(score, Mean()).weight}

    one, other = places(mine), places(others)
    common = [place for place in one if place in other]
    return [one[place] for place in common], [other[place] for place in common]


_OVER_LANGUAGES = "mean over languages"
_COUNTS = (UNPARSED, UNANSWERED)


def _groups(graded: Sequence[Graded]) -> Iterable[tuple[str, str, str, Sequence[Graded]]]:
    """Yield (exam, group, score, what belongs to it); a tag with one value makes no groups."""
    for exam in dict.fromkeys(one.exam for one in graded):
        all_of_it = [one for one in graded if one.exam == exam]
        groups: dict[str, Sequence[Graded]] = {"": all_of_it}
        for tag in ("category", "language"):
            values = dict.fromkeys(one.tags[tag] for one in all_of_it if tag in one.tags)
            parts = {f"{tag}: {value}": [one for one in all_of_it if one.tags.get(tag) == value] for value in values}
            groups |= parts if len(parts) > 1 else {}
            if tag == "language" and len(parts) > 1:
                groups[_OVER_LANGUAGES] = [one for one in all_of_it if tag in one.tags]
        for group, chosen in groups.items():
            for score in dict.fromkeys(name for one in all_of_it for name in one.scores if name not in _COUNTS):
                yield exam, group, score, chosen


def _table(graded: Sequence[Graded], score: str, group: str, cluster: str) -> ScoreTable:
    """Return a score as totals and weights: a row per seed, a column per question.

    In the mean over languages each language counts alike, however many questions it has.
    """
    alike = "language" if group == _OVER_LANGUAGES else ""
    sizes = summed((one.tags.get(alike, ""), one.scores.get(score, Mean())) for one in graded)
    scored: list[Scored] = []
    for one in graded:
        mean = one.scores.get(score, Mean())
        share = 1.0 / max(sizes[one.tags.get(alike, "")].weight, 1e-30) if alike else 1.0
        about = {"about": one.tags.get(cluster, "")}
        score_of = {score: Mean(mean.total * share, mean.weight * share)}
        scored.append(Scored(one.exam, one.index, f"{one.seed:020}", about, score_of))
    return score_table(scored, score, "about")


def unparsed(graded: Sequence[Graded]) -> dict[str, Mean]:
    """Return by exam how many verdicts could not be parsed (total) of how many (weight); exams without any left out."""
    return _counted(graded, UNPARSED)


def unanswered(graded: Sequence[Graded]) -> dict[str, int]:
    """Return by exam how many answers and verdicts were refused for good; exams without any left out."""
    return {exam: int(mean.total) for exam, mean in _counted(graded, UNANSWERED).items()}


def _counted(graded: Sequence[Graded], score: str) -> dict[str, Mean]:
    return summed((one.exam, one.scores[score]) for one in graded if score in one.scores)


def warnings(graded: Sequence[Graded]) -> list[str]:
    """Return what a reader has to know: few questions, verdicts that say nothing."""
    found: list[str] = []
    for exam in dict.fromkeys(one.exam for one in graded):
        n = len({one.index for one in graded if one.exam == exam})
        if n < FEW:
            found.append(f"{exam}: {n} questions, fewer than {FEW}: intervals are wide, small differences stay hidden.")
    found += [
        f"{exam}: {count} answers or verdicts are unanswered, refused for good, and scored nowhere; the .jsonl files "
        "say why, and what loses its line there is asked again."
        for exam, count in unanswered(graded).items()
    ]
    return found + [
        f"{exam}: {int(mean.total)} of {int(mean.weight)} verdicts could not be parsed and are scored nowhere."
        for exam, mean in unparsed(graded).items()
        if mean.total
    ]


def questions_sha256(questions: Sequence[Question]) -> str:
    """Return the SHA-256 of all that is asked: ids, turns, categories, references and tags, in order."""
    plain = [[q.id, q.turns, q.category, q.references, sorted(q.tags.items())] for q in questions]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()
