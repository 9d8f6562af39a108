"""Responses that their teacher gives again when it is asked again.

The mean over a candidate's further responses of their token F1 with its response, or of how many say the same: samples
that agree are right more often (self-consistency, Wang et al., 2022, https://arxiv.org/abs/2203.11171).

Deviations: nothing is voted on; the first response stays, or the candidate goes.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.evaluation.metrics.exact_match import ExactMatch
from fedloom.evaluation.metrics.token_f1 import TokenF1

__all__ = ["Agreement"]

_MEASURES = {"token_f1": TokenF1, "exact": ExactMatch}


@plugin("agreement")
class Agreement(Filter):
    """Drops candidates whose further responses contradict the one that would be trained on."""

    reasons: ClassVar[tuple[str, ...]] = ("disagreement", "not_sampled")
    looks_at: ClassVar[frozenset[str]] = frozenset({"response", "others"})

    by: Literal["token_f1", "exact"] = "token_f1"
    """How two responses are compared."""
    least: Fraction = 0.5
    """Least mean agreement."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and the agreement for each candidate; one without further responses is dropped."""
        return [self._verdict(one) for one in candidates]

    def _verdict(self, one: Candidate) -> Verdict:
        if not one.others:
            return Verdict("not_sampled")
        measure = _MEASURES[self.by]()
        mean = sum(measure.score(other, one.response) for other in one.others) / len(one.others)
        return Verdict("disagreement" if mean < self.least else "", mean)
