"""Share of answers that begin with no label, where the reference does: what `label_match` counts as wrong unread."""

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._labels import SENTIMENT, check_labels, told_label

__all__ = ["LabelUnparsed"]


@plugin("label_unparsed")
class LabelUnparsed(Metric):
    """1 if the prediction begins with no label, else 0."""

    higher_is_better = False

    labels: tuple[str, ...] = SENTIMENT

    def check(self) -> None:
        """Refuse labels that cannot be told apart."""
        check_labels(self.labels)

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return 0 or 1; weight 0 without a reference, or if it begins with no label."""
        return told_label(example, prediction, self.labels, lambda found, _: found is None)
