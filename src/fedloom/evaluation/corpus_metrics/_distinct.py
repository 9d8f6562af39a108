"""Distinct n-grams over all n-grams of many texts."""

from collections import Counter
from collections.abc import Sequence

from fedloom.text.words import ngrams, words

__all__ = ["distinct"]


def distinct(texts: Sequence[str], size: int) -> float:
    """Return the share, 0 if the texts hold no n-gram of that size: who says nothing is not diverse."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(ngrams(words(text), size))
    return len(counts) / counts.total() if counts else 0.0
