"""How like answers and references are as two sets of texts: the area below their divergence frontier.

Source: MAUVE, Pillutla et al., 2021, https://arxiv.org/abs/2102.01454, eq. 1 to 3: texts become vectors, vectors fall
into clusters, and over all mixtures of the two histograms the errors of both kinds are weighed; 1 for equal sets, near
0 for disjoint ones.

Deviations: vectors come from the sentence encoder at `path`, without one from counts of character n-grams, in place of
a large language model's states, hence the name: figures compare among themselves only. Fewer than 500 texts are
refused: with few, the area is biased and its spread hides what it measures.
"""

from collections.abc import Sequence

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfReferences
from fedloom.evaluation.corpus_metrics._frontier import area, histograms
from fedloom.text.embedding import counted, embedded

__all__ = ["MauveStyle"]


@plugin("mauve_style")
class MauveStyle(OfReferences):
    """The area, 0 to 1."""

    needs = ("sklearn",)

    least = 500

    path: str = ""
    """Folder of a sentence encoder with its tokenizer; empty: hashed n-grams of characters."""

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the area."""
        texts = [*found, *wanted]
        vectors_LD = embedded(texts, self.path).double().numpy() if self.path else counted(texts)
        return area(*histograms(*np.split(vectors_LD, 2)))
