"""Contracts of asking and grading: who completes prompts, what is asked, what answers are worth.

Everything here is pure but an opened completer: an exam says what to ask and how to read verdicts, and never asks
itself, so that one driver (`examining.py`) resumes and counts for all of them. Nobody asks a completer directly either:
`completers.answer_file.Asker` caches, keeps to a budget and opens it only when there is something left to ask.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from fedloom.base.errors import ConfigError
from fedloom.base.mean import Mean
from fedloom.base.plugin import Family
from fedloom.contracts.examples import Example, Turn
from fedloom.contracts.model import Prediction

__all__ = [
    "Answer",
    "Answered",
    "Completer",
    "Completion",
    "CorpusMetric",
    "Exam",
    "GradeRequest",
    "Metric",
    "Prompt",
    "Question",
    "Sampling",
]

Prompt = tuple[Turn, ...]
"""A conversation that ends with a user's turn; an empty one asks a model of ours for the question that begins one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is drawn."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are not part of it."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 <= self.top_p <= 1 or "" in self.stop:
            raise ConfigError(
                f"found {self}, allowed are max_new_tokens >= 1, temperature >= 0, 0 <= top_p <= 1 and no empty stop."
            )


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer: its text, its tokens, and those of its prompt, as far as they are known (0 where they are not)."""

    text: str
    n_tokens: int = 0
    prompt_tokens: int = 0
    refused: str = ""
    """Why this prompt has no answer and never will, such as its length; the text is blank then."""


class Answer(Protocol):
    """What an opened completer answers by."""

    def __call__(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int] = (), /
    ) -> Iterator[tuple[int, Completion]]:
        """Give the place of each prompt with its answer, as soon as it is there and in any order.

        `seeds`, one for each prompt, take the place of `sampling.seed`. With equal sampling and seed an answer depends
        on its prompt alone, not on what is asked beside it, as far as the completer controls that. A prompt that can
        never be answered gets a Completion with `refused`. Where one gets no answer for another reason, which time or
        other settings may mend, the others' are given first, then CompletionError is raised.
        """
        ...


class Completer(Family):
    """Whoever answers prompts: a model of ours, a server, a fixed list."""

    folder = "fedloom.completers"

    @abstractmethod
    def identity(self) -> str:
        """Return what the answers depend on besides prompt and sampling: the name a cache knows this completer by.

        It is told without a model being loaded or a server reached, and never holds a secret.
        """

    def remote(self) -> str:
        """Return the host that prompts go to, where that is another machine; "" where they stay on this one."""
        return ""

    def require(self) -> None:
        """Refuse what would stop every prompt and can be told at once, such as a missing library or key."""
        return

    @abstractmethod
    def opened(self) -> AbstractContextManager[Answer]:
        """Return a block in which prompts are answered: a model is loaded or a connection made when it begins."""

    def together(self) -> int:
        """Return how many prompts are worth giving at once; a budget is looked at between such groups."""
        return 1


# --------------------------------------------------------------------------------------------------------------- exams


@dataclass(frozen=True, slots=True)
class Question:
    """One item of an exam; more than one turn means that the next is asked after the answer to the one before."""

    id: str
    turns: tuple[str, ...]
    category: str = ""
    references: tuple[str, ...] = ()
    """A reference answer per turn, or none."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with the answers to its turns."""

    question: Question
    answers: tuple[str, ...]
    """One to each turn; blank from the first that was refused on."""
    refused: str = ""
    """Why a turn has no answer and never will."""


@dataclass(frozen=True, slots=True)
class GradeRequest:
    """What a judge is asked about an answer; `name` tells it from the exam's other requests about the question."""

    name: str
    prompt: Prompt


class Exam(Family):
    """An open-ended examination: questions, what a judge is asked of an answer, and how verdicts become scores."""

    folder = "fedloom.judged.exams"
    version: ClassVar[int] = 1
    """Rises whenever a question, a prompt or a rule changes scores; part of every result (verdicts lie by prompt)."""
    needs_judge: ClassVar[bool] = True
    """Whether nothing is scored without a judge; the requests of one that scores by itself are put if there is one."""
    needs_other: ClassVar[bool] = False
    """Whether the answers of a second model are compared with."""

    @abstractmethod
    def questions(self) -> Sequence[Question]:
        """Return the questions in a fixed order; a missing or malformed file is refused with what to fetch."""

    @abstractmethod
    def sampling(self, question: Question) -> Sampling:
        """Return how the candidate answers."""

    def judging(self) -> Sampling:
        """Return how the judge answers."""
        return Sampling(max_new_tokens=1024)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return what the judge is asked; `other` holds the second model's answers where `needs_other`."""
        return ()

    @abstractmethod
    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return the scores of one answer from the judge's texts by request name; none of them where nobody judged.

        A verdict that cannot be parsed gives no score: it is counted by the score `unparsed` (1 of weight 1; a parsed
        one 0 of weight 1), and nowhere else.
        """


# ------------------------------------------------------------------------------------------------------------- metrics


class Metric(Family):
    """A score of one prediction."""

    folder = "fedloom.evaluation.metrics"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    higher_is_better: ClassVar[bool | None] = True
    """None where neither is, as with a length."""

    @abstractmethod
    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the score as a Mean of weight 1 (weight 0 where it does not apply)."""


class CorpusMetric(Family):
    """A score of many texts at once, which no mean over texts is."""

    folder = "fedloom.evaluation.corpus_metrics"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    higher_is_better: ClassVar[bool | None] = True
    least: ClassVar[int] = 2
    """Texts below which it is refused."""

    @abstractmethod
    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """Return the score of the predictions; a reference stands beside each, "" where there is none."""
