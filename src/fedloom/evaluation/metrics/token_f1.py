"""Overlap of the words of prediction and reference, as bags: 2 |P and R| / (|P| + |R|).

Source: the F1 of SQuAD (Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, section 6.1).

Deviations: words are those of `fedloom.text.words` in any script, so that punctuation parts words where SQuAD drops it,
and Chinese and its like count by character; articles, which only English has, stay. A reference without words, such as
a sign, is compared as in `exact_match`.
"""

from collections import Counter

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference, normalise
from fedloom.text.words import words

__all__ = ["TokenF1"]


@plugin("token_f1")
class TokenF1(OfReference):
    """The harmonic mean of precision and recall over words, 0 to 1."""

    def score(self, text: str, reference: str) -> float:
        """Return the overlap."""
        found, wanted = Counter(words(text)), Counter(words(reference))
        if not wanted:
            return float(normalise(text) == normalise(reference))
        return 2 * (found & wanted).total() / (found.total() + wanted.total())
