"""Share of answers that hold nothing but white space, as those to prompts that were too long."""

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction

__all__ = ["EmptyAnswer"]


@plugin("empty_answer")
class EmptyAnswer(Metric):
    """1 if the answer is blank, else 0."""

    higher_is_better = False

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return 0 or 1; a Document asks nothing and weighs 0."""
        return Mean(float(not prediction.text.strip()), 1.0) if example.prompt else Mean()
