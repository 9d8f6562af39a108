"""How much of a document a pair says word for word, and whether it holds what names or reaches a person."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import ClassVar

from fedloom.base.plugin import Count, plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.text.words import words

__all__ = ["Leakage", "longest_shared"]

_PERSONAL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+|(?:\+?\d[\s()./-]?){9,}|\b\d{3}-\d{2}-\d{4}\b")


def longest_shared(text: str, other: str) -> int:
    """Return the words of the longest run that two texts share.

    >>> longest_shared("we sell red bread here", "Red bread, here!")
    3
    """
    own, others = words(text), words(other)
    return SequenceMatcher(None, own, others, autojunk=False).find_longest_match().size


@plugin("leakage")
class Leakage(Filter):
    """Measures the longest run of words that a pair shares with its document; drops what is asked to be dropped."""

    reasons: ClassVar[tuple[str, ...]] = ("verbatim", "personal")

    most_words: Count = 0
    """Longest run allowed; 0 measures and drops nothing."""
    personal: bool = False
    """Whether pairs with mail addresses, telephone or insurance numbers are dropped."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and the longest run for each candidate by itself."""
        return [self._verdict(one) for one in candidates]

    def _verdict(self, one: Candidate) -> Verdict:
        n_words = max(longest_shared(text, one.document) for text in (one.instruction, one.response))
        if self.most_words and n_words > self.most_words:
            return Verdict("verbatim", float(n_words))
        personal = self.personal and _PERSONAL.search(f"{one.instruction}\n{one.response}")
        return Verdict("personal" if personal else "", float(n_words))
