"""Distinct-2: how many different pairs of neighbouring words the answers hold, over how many they hold.

Source: Li et al., 2016, https://arxiv.org/abs/1510.03055, section 5.2.

Deviations: over all n-grams of that size in place of all words, so that 1 is reached for any size. It falls as texts
become more: compare equal numbers of texts only.
"""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import CorpusMetric
from fedloom.evaluation.corpus_metrics._checks import check_count
from fedloom.evaluation.corpus_metrics._distinct import distinct

__all__ = ["Distinct2"]


@plugin("distinct_2")
class Distinct2(CorpusMetric):
    """1 if nothing is said twice."""

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """Return the share; references do not matter."""
        check_count(self, len(predictions))
        return distinct(predictions, 2)
