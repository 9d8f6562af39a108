"""Overlap of the words of prediction and reference, as bags: 2 |P and R| / (|P| + |R|).

Source: the F1 of SQuAD (Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, section 6.1).

Deviations: words are those of `fedloom.text.words` in any script, so that punctuation parts words where SQuAD drops it,
and Chinese and its like count by character; articles, which only English has, stay. A reference without words, such as
a sign, is compared as in `exact_match`.
"""

from collections import Counter

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._texts import normalise, reference_of
from fedloom.text.words import words

__all__ = ["TokenF1"]


@plugin("token_f1")
class TokenF1(Metric):
    """The harmonic mean of precision and recall over words, 0 to 1."""

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the overlap; without a reference the weight is 0."""
        reference = reference_of(example)
        if reference is None:
            return Mean()
        found, wanted = (Counter(words(text)) for text in (prediction.text, reference))
        if not wanted:
            return Mean(float(normalise(prediction.text) == normalise(reference)), 1.0)
        return Mean(2 * (found & wanted).total() / (found.total() + wanted.total()), 1.0)
