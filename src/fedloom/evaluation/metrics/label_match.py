"""Accuracy of labels, read where an answer begins: one rule for all data sets, and no default.

Source: the finance sentiment sets of FinGPT as OpenFedLLM evaluates them (Ye et al., 2024,
https://arxiv.org/abs/2402.06954).

Deviations: published, labels are searched anywhere, in another order for one of the sets, and what holds none counts
as neutral. Here an answer that begins with no label is wrong; `label_unparsed` counts these apart.
"""

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._labels import SENTIMENT, check_labels, told_label

__all__ = ["LabelMatch"]


@plugin("label_match")
class LabelMatch(Metric):
    """1 if prediction and reference begin with the same label, else 0."""

    labels: tuple[str, ...] = SENTIMENT

    def check(self) -> None:
        """Refuse labels that cannot be told apart."""
        check_labels(self.labels)

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return 0 or 1; weight 0 without a reference, or if it begins with no label."""
        return told_label(example, prediction, self.labels, lambda found, wanted: found == wanted)
