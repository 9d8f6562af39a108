"""Share of an answer's 4-grams of words that repeat an earlier one: 1 - distinct / all.

Source: seq-rep-4 of Welleck et al., 2020, https://arxiv.org/abs/1908.04319, section 6, eq. 10.

Deviations: over words in place of a model's tokens. An answer of fewer than four words repeats nothing.
"""

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfAnswer
from fedloom.text.words import ngrams, words

__all__ = ["Repetition"]

_SIZE = 4


@plugin("repetition")
class Repetition(OfAnswer):
    """0 if no 4-gram repeats; towards 1 if one is all that is said."""

    higher_is_better = False

    def score(self, text: str) -> float:
        """Return the share."""
        counts = ngrams(words(text), _SIZE)
        return 1 - len(counts) / counts.total() if counts else 0.0
