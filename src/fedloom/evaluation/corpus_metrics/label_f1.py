"""Mean F of the labels with which answers begin: all labels alike, or each by how often references have it.

Source: the finance sentiment sets of FinGPT as OpenFedLLM evaluates them (Ye et al., 2024,
https://arxiv.org/abs/2402.06954), computed by `sklearn.metrics.f1_score` (extra `text`). Labels are read as in
`label_match`: at the start, with no default; what begins with no label is wrong for each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedloom.base.errors import ConfigError
from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.contracts.federated import CorpusMetric
from fedloom.evaluation.corpus_metrics._checks import check_count
from fedloom.text.words import first_label

__all__ = ["MacroF1", "WeightedF1"]


@dataclass(frozen=True, kw_only=True)
class LabelF1(CorpusMetric):
    """The mean F of the labels, 0 to 1."""

    needs = ("sklearn",)
    average: ClassVar[str]
    """How the labels count, in the library's word."""

    labels: tuple[str, ...] = ("negative", "neutral", "positive")
    """The labels that are looked for."""

    def check(self) -> None:
        """Refuse labels of which fewer than two differ."""
        if len({label.casefold() for label in self.labels}) < 2:
            raise ConfigError(f"labels: found {list(self.labels)}, allowed are two or more different ones.")

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """Return the mean F over the labels that references begin with; pairs whose reference has none are left out."""
        pairs = [
            (first_label(prediction, self.labels) or "", wanted)
            for prediction, reference in zip(predictions, references, strict=True)
            if (wanted := first_label(reference, self.labels)) is not None
        ]
        check_count(self, len(pairs), "texts whose reference begins with a label")
        found, wanted = [found for found, _ in pairs], [wanted for _, wanted in pairs]
        f1_score, asked = library("sklearn.metrics").f1_score, sorted(set(wanted))
        return min(1.0, float(f1_score(wanted, found, labels=asked, average=self.average, zero_division=0)))


@plugin("macro_f1")
class MacroF1(LabelF1):
    """All labels count alike."""

    average = "macro"


@plugin("weighted_f1")
class WeightedF1(LabelF1):
    """Each label counts by how often references have it."""

    average = "weighted"
