"""Share of answers that hold nothing but white space, as those to prompts that were too long."""

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfAnswer

__all__ = ["EmptyAnswer"]


@plugin("empty_answer")
class EmptyAnswer(OfAnswer):
    """1 if the answer is blank, else 0."""

    higher_is_better = False

    def score(self, text: str) -> float:
        """Return 0 or 1."""
        return float(not text.strip())
