"""Distinct-1 and distinct-2: how many different words, or pairs of them, the answers hold, over how many they hold.

Source: Li et al., 2016, https://arxiv.org/abs/1510.03055, section 5.2.

Deviations: over all n-grams of that size in place of all words, so that 1 is reached for any size. It falls as texts
become more: compare equal numbers of texts only.
"""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfAnswers
from fedloom.text.words import ngrams, words

__all__ = ["Distinct1", "Distinct2"]


class Distinct(OfAnswers):
    """1 if nothing is said twice, 0 if no n-gram is said: who says nothing is not diverse."""

    size: ClassVar[int]
    """Words of an n-gram."""

    def score(self, texts: Sequence[str]) -> float:
        """Return the share."""
        counts: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            counts.update(ngrams(words(text), self.size))
        return len(counts) / counts.total() if counts else 0.0


@plugin("distinct_1")
class Distinct1(Distinct):
    """Of words."""

    size = 1


@plugin("distinct_2")
class Distinct2(Distinct):
    """Of pairs of neighbouring words."""

    size = 2
