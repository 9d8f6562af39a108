"""Whether two texts overlap as far as a bound of ROUGE-L, asked of many pairs: most are told apart by their words."""

from collections import Counter

from fedloom.evaluation.metrics.rouge import RougeL
from fedloom.text.words import words

__all__ = ["overlaps"]


def overlaps(text: str, other: str, least: float) -> bool:
    """Return whether ROUGE-L (F) of two texts is at least `least`.

    The longest common subsequence is no longer than the words in common, so that their F is an upper bound.
    """
    counts, others = Counter(words(text)), Counter(words(other))
    n_words = counts.total() + others.total()
    if not n_words or 2 * (counts & others).total() < least * n_words:
        return False
    return (RougeL().score(text, other) or 0.0) >= least
