"""Nothing that a demonstration said already: instructions unlike all of those that the completer was shown.

A candidate goes whose instruction has a cosine of TF-IDF above 0.52 to any of its demonstrations' (the bound of the
raw synthesis of KnowledgeSG, Wang et al., 2024, https://arxiv.org/abs/2410.05725, as its code has it).

Deviations: TF-IDF is fitted on the instructions of all candidates, the pool and the demonstrations, each text once. The
published code fits it on the two texts that it compares, where inverse frequencies mean nothing.
"""

from collections.abc import Sequence
from itertools import islice
from typing import ClassVar

from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.synthesis.vectors import tfidf_pairs

__all__ = ["Demonstration"]


@plugin("demonstration")
class Demonstration(Filter):
    """Drops candidates whose instruction resembles that of an example they were shown."""

    needs = ("sklearn",)
    reasons: ClassVar[tuple[str, ...]] = ("like_demonstration",)

    most: Fraction = 0.52
    """Largest cosine allowed."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and the largest cosine for each candidate; without examples it is kept and not measured."""
        own = [one.instruction for one in candidates]
        shown = [row.instruction for one in candidates for row in one.examples]
        corpus = [*dict.fromkeys([*own, *shown, *(row.instruction for row in around.pool)])]
        places = {text: at for at, text in enumerate(corpus)}
        pairs = [(at, places[row.instruction]) for at, one in enumerate(candidates) for row in one.examples]
        cosines = iter(tfidf_pairs(own, corpus, pairs))
        return [self._verdict([*islice(cosines, len(one.examples))]) for one in candidates]

    def _verdict(self, cosines: Sequence[float]) -> Verdict:
        if not cosines:
            return Verdict()
        closest = min(max(cosines), 1.0)
        return Verdict("like_demonstration" if closest > self.most else "", closest)

    def brings_in(self) -> str:
        """Other candidates' words decide how much a word counts."""
        return "filters: 'demonstration'"
