"""ROUGE-L: the longest common subsequence of words, as precision and recall in one harmonic mean.

Source: Lin, 2004, https://aclanthology.org/W04-1013, section 3.1, eq. 2 to 4 with beta 1, through the library
`rouge-score` (extra `text`).

Deviations: the whole text is one sentence; no stemming; words of any script where the library knows ASCII only, so
that figures of ASCII texts equal the library's.
"""

from typing import ClassVar

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics._rouge import rouge

__all__ = ["RougeL"]


@plugin("rouge_l")
class RougeL(Metric):
    """The F of ROUGE-L, 0 to 1."""

    needs: ClassVar[tuple[str, ...]] = ("rouge_score",)

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the F; weight 0 without a reference, or if it has no word."""
        return rouge(example, prediction, "rougeL", least=1)
