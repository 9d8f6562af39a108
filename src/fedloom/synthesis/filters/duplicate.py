"""Each instruction once: a candidate is dropped that says what one before it said.

The bound 0.7 of ROUGE-L is that of Self-Instruct (Wang et al., 2022, https://arxiv.org/abs/2212.10560, section 2.2).

Deviations: compared are one client's candidates in their order, and nothing of the pool.
"""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.synthesis.filters._overlap import overlaps
from fedloom.text.words import words

__all__ = ["Duplicate"]


@plugin("duplicate")
class Duplicate(Filter):
    """Drops candidates whose instruction or whole text a kept one has already."""

    needs = ("rouge_score",)
    reasons: ClassVar[tuple[str, ...]] = ("duplicate",)

    overlap: Fraction = 0.7
    """ROUGE-L of two instructions from which on they are one."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict for each candidate beside those kept before it."""
        kept: list[str] = []
        pairs: set[tuple[str, ...]] = set()
        verdicts: list[Verdict] = []
        for one in candidates:
            pair = (*words(one.instruction), "\n", *words(one.response))
            again = pair in pairs or any(overlaps(one.instruction, other, self.overlap) for other in kept)
            verdicts.append(Verdict("duplicate" if again else ""))
            if not again:
                kept.append(one.instruction)
                pairs.add(pair)
        return verdicts

    def brings_in(self) -> str:
        """A candidate goes where another is."""
        return "filters: 'duplicate'"
