"""Share of predictions that say the reference, nothing less and nothing more.

Case, surrounding white space and one final full stop (of Latin, Chinese or Japanese texts) do not count. Deliberately
missing: the removal of articles and of all punctuation in SQuAD's score (Rajpurkar et al., 2016,
https://arxiv.org/abs/1606.05250), which would make "-5" and "5" equal.
"""

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._texts import normalise, reference_of

__all__ = ["ExactMatch"]


@plugin("exact_match")
class ExactMatch(Metric):
    """1 if prediction and reference are equal, else 0."""

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return 0 or 1; without a reference the weight is 0."""
        reference = reference_of(example)
        if reference is None:
            return Mean()
        return Mean(float(normalise(prediction.text) == normalise(reference)), 1.0)
