"""Responses that the document supports: their words and their numbers stand in it.

For extractive domains. It does not tell a wrong response made of the document's own words from a right one.
"""

import re
from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.evaluation.metrics.numeric_match import numbers
from fedloom.text.words import words

__all__ = ["Grounding"]

_LETTERS = re.compile(r"[^\W\d_]{4,}")


@plugin("grounding")
class Grounding(Filter):
    """Drops responses with words or numbers from elsewhere."""

    reasons: ClassVar[tuple[str, ...]] = ("ungrounded", "foreign_number")
    looks_at: ClassVar[frozenset[str]] = frozenset({"document", "response"})

    least: Fraction = 0.5
    """Share of a response's content words, those of four letters and more, that stand in the document."""
    sums: bool = False
    """Whether a number may also be the sum, difference or product of two numbers of the document, as in mathematics."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and the share of grounded words for each candidate by itself."""
        return [self._verdict(one) for one in candidates]

    def _verdict(self, one: Candidate) -> Verdict:
        known = set(words(one.document))
        content = [word for word in words(one.response) if _LETTERS.fullmatch(word)]
        share = sum(word in known for word in content) / len(content) if content else 1.0
        if share < self.least:
            return Verdict("ungrounded", share)
        allowed = set(numbers(one.document))
        if self.sums:
            allowed |= {f for a in allowed for b in allowed for f in (a + b, a - b, a * b)}
        return Verdict("" if allowed.issuperset(numbers(one.response)) else "foreign_number", share)
