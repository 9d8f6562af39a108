"""Jensen-Shannon divergence of the words of all answers and of all references, in bits: 0 alike, 1 nothing in common.

Source: Lin, 1991, IEEE Transactions on Information Theory 37(1), eq. 4.1 with equal weights, of relative frequencies
of words.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfReferences
from fedloom.text.words import words

__all__ = ["VocabularyDivergence"]


@plugin("vocabulary_divergence")
class VocabularyDivergence(OfReferences):
    """How unlike the words of answers and references are."""

    higher_is_better = False

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the divergence; one side without words is unlike any words."""
        counts = [Counter(word for text in texts for word in words(text)) for texts in (found, wanted)]
        if not all(counts):
            return float(any(counts))
        known = sorted(counts[0] | counts[1])
        p_V, q_V = (_shares(side, known) for side in counts)
        mean_V = (p_V + q_V) / 2
        return min(1.0, max(0.0, (_bits(p_V, mean_V) + _bits(q_V, mean_V)) / 2))


def _shares(counts: Mapping[str, int], known: Sequence[str]) -> NDArray[np.float64]:
    found_V = np.array([counts.get(word, 0) for word in known], dtype=np.float64)
    return found_V / found_V.sum()


def _bits(p_V: NDArray[np.float64], q_V: NDArray[np.float64]) -> float:
    """Return the relative entropy of p to q, which is nowhere 0 where p is not."""
    some = p_V > 0
    return float((p_V[some] * np.log2(p_V[some] / q_V[some])).sum())
