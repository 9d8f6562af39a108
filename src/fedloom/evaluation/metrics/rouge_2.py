"""ROUGE-2: overlap of the pairs of neighbouring words, precision and recall in one harmonic mean.

Source: Lin, 2004, https://aclanthology.org/W04-1013, section 2, through the library `rouge-score` (extra `text`).

Deviations: F in place of recall, as the library reports it; no stemming; words of any script where the library knows
ASCII only, so that figures of ASCII texts equal the library's.
"""

from typing import ClassVar

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._rouge import rouge

__all__ = ["Rouge2"]


@plugin("rouge_2")
class Rouge2(Metric):
    """The F of ROUGE-2, 0 to 1."""

    needs: ClassVar[tuple[str, ...]] = ("rouge_score",)

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the F; weight 0 without a reference, or if it has fewer than two words."""
        return rouge(example, prediction, "rouge2", least=2)
