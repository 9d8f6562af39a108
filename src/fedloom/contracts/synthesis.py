"""The contracts of generated instruction data: pool rows, candidates, verdicts; who selects, who asks, who filters.

A client's documents become candidates by a completer that is shown examples of the pool; a chain of filters decides
which candidates are trained on. Pool rows are public. Documents and candidates never leave the client.

Shape letters: N documents of a client, M rows of the pool.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedloom.base.plugin import Family
from fedloom.contracts.evaluation import Completer, Prompt
from fedloom.contracts.examples import Turn

__all__ = [
    "Allocator",
    "Around",
    "Ask",
    "Candidate",
    "Filter",
    "PoolRow",
    "Questioner",
    "Selection",
    "Selector",
    "Similarities",
    "Verdict",
    "Where",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A public example: a document with the pair that was written about it."""

    id: str
    document: str
    instruction: str
    response: str
    domain: str = ""

    @property
    def turns(self) -> tuple[Turn, Turn]:
        """The pair as a conversation."""
        return Turn("user", self.instruction), Turn("assistant", self.response)


@dataclass(frozen=True)
class Where:
    """Whose documents are at work, by which every draw is named."""

    seed: int
    client: str
    documents: tuple[str, ...] = ()
    """Hashes of the documents' texts, so that no document's draws depend on the others."""


@dataclass(frozen=True)
class Similarities:
    """Cosine similarities between documents, never between a document and an instruction."""

    to_pool_NM: NDArray[np.float64]
    within_pool_MM: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Selection:
    """The examples that a document is shown with, the most similar last, next to the document."""

    rows: tuple[int, ...]
    fallback: bool = False
    """Whether nothing in the pool was similar enough."""


class Selector(Family):
    """How examples are chosen for each document of a client."""

    folder = "fedloom.synthesis.selectors"

    @abstractmethod
    def __call__(self, near: Similarities, where: Where) -> list[Selection]:
        """Return a selection for each of the N documents; ties go to the earlier row of the pool.

        Raises ConfigError where more examples are asked for than the pool has.
        """

    def brings_in(self) -> str:
        """Return the setting by which one document decides about another's examples; "" if there is none."""
        return ""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a model is asked to write one new question by."""

    prompt: Prompt
    """Empty: the model begins a conversation."""
    examples: tuple[PoolRow, ...] = ()
    """The public examples that the prompt shows."""
    text: str = ""
    """What is taken as it stands, without a model being asked."""


class Questioner(Family):
    """How a model is brought to write new questions."""

    folder = "fedloom.synthesis.questioners"
    drafts: ClassVar[bool] = False
    """Whether a response is written beside each question."""

    @property
    def shows(self) -> int:
        """Public seeds that it needs at least."""
        return 0

    @abstractmethod
    def asks(self, seeds: Sequence[PoolRow], count: int, seed: int) -> list[Ask]:
        """Return what to ask for as many questions; what is drawn is drawn by the seed."""

    @abstractmethod
    def read(self, text: str) -> tuple[str, str]:
        """Return the question and the response that a completion holds; ("", "") for none, a blank response too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A generated pair, before it is known whether it is kept."""

    id: str
    """The document, the chunk of it and the number of the draw."""
    document: str
    """The text that the completer was shown."""
    instruction: str
    response: str
    examples: tuple[PoolRow, ...] = ()
    """The examples that the completer was shown."""
    others: tuple[str, ...] = ()
    """Further responses to the same instruction, drawn to see whether they agree."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a filter says of a candidate."""

    reason: str = ""
    """Why it is dropped, a word from the filter's `reasons`; empty: it is kept."""
    score: float | None = None
    """What was measured, where a number was."""


@dataclass(frozen=True)
class Around:
    """What a filter may look at besides the candidates."""

    pool: Sequence[PoolRow] = ()
    answers: Path | None = None
    """The file that keeps what a filter asks a completer; None: a file that goes with the call."""


class Filter(Family):
    """One step of the chain that decides which candidates are kept."""

    folder = "fedloom.synthesis.filters"
    reasons: ClassVar[tuple[str, ...]] = ()
    """Every reason that the filter gives."""
    looks_at: ClassVar[frozenset[str]] = frozenset()
    """What of a candidate must be there, of `document`, `response` and `others`: without it all would be dropped."""

    @abstractmethod
    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict for each of one owner's candidates, which all earlier filters have kept."""

    def identity(self) -> str:
        """Return what verdicts depend on besides settings and candidates, such as a model's weights; "" if nothing."""
        return ""

    def asks(self) -> Completer | None:
        """Return the completer that candidates are shown to; None where nobody is."""
        return None

    def trained_on_sets(self) -> tuple[str, ...]:
        """Return the data sets that whoever it asks was trained on, as far as they are declared."""
        return ()

    def brings_in(self) -> str:
        """Return the setting by which one candidate decides about another; "" if there is none."""
        return ""


class Allocator(Family):
    """How a total, of samples, calls or tokens, is dealt to parts such as clients, classes or documents."""

    folder = "fedloom.synthesis.allocators"

    @abstractmethod
    def __call__(self, total: int, has: Sequence[int]) -> list[int]:
        """Return how much each part gets beside what it `has`: whole numbers, none negative, that sum to the total.

        Ties go to the earlier part; without parts the list is empty.
        """
