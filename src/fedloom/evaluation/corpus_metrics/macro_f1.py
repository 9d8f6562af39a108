"""Mean F of the labels with which answers begin, all labels counting alike.

Source: the finance sentiment sets of FinGPT as OpenFedLLM evaluates them (Ye et al., 2024,
https://arxiv.org/abs/2402.06954), computed by `sklearn.metrics.f1_score` (extra `text`). Labels are read as in
`label_match`: at the start, with no default.
"""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import CorpusMetric
from fedloom.evaluation.corpus_metrics._labels import check_labels, label_f1

__all__ = ["MacroF1"]


@plugin("macro_f1")
class MacroF1(CorpusMetric):
    """The mean F of the labels, 0 to 1."""

    needs: ClassVar[tuple[str, ...]] = ("sklearn",)

    labels: tuple[str, ...] = ("negative", "neutral", "positive")

    def check(self) -> None:
        """Refuse labels that cannot be told apart."""
        check_labels(self.labels)

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """Return the mean F over the labels that references begin with."""
        return label_f1(self, predictions, references, self.labels, "macro")
