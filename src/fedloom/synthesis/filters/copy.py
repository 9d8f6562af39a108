"""Nothing taken from the examples: they show how to write, and are no data about the document."""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.synthesis.filters._overlap import overlaps
from fedloom.text.words import words

__all__ = ["Copy"]


@plugin("copy")
class Copy(Filter):
    """Drops instructions of the pool, near-copies of an example's and its responses."""

    needs = ("rouge_score",)
    reasons: ClassVar[tuple[str, ...]] = ("copied_instruction", "copied_response")

    overlap: Fraction = 0.9
    """ROUGE-L with the instruction of a shown example from which on a candidate's counts as a copy."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict for each candidate by itself."""
        known = {tuple(words(row.instruction)) for row in around.pool}
        return [Verdict(self._reason(one, known)) for one in candidates]

    def _reason(self, one: Candidate, known: set[tuple[str, ...]]) -> str:
        if tuple(words(one.instruction)) in known:
            return "copied_instruction"
        if any(overlaps(one.instruction, row.instruction, self.overlap) for row in one.examples):
            return "copied_instruction"
        response = words(one.response)
        return "copied_response" if any(words(row.response) == response for row in one.examples) else ""
