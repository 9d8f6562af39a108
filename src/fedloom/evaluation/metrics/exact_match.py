"""Share of predictions that say the reference, nothing less and nothing more.

Case, surrounding white space and one final full stop (of Latin, Chinese or Japanese texts) do not count. Deliberately
missing: the removal of articles and of all punctuation in SQuAD's score (Rajpurkar et al., 2016,
https://arxiv.org/abs/1606.05250), which would make "-5" and "5" equal.
"""

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference, normalise

__all__ = ["ExactMatch"]


@plugin("exact_match")
class ExactMatch(OfReference):
    """1 if prediction and reference are equal, else 0."""

    def score(self, text: str, reference: str) -> float:
        """Return 0 or 1."""
        return float(normalise(text) == normalise(reference))
