"""How far answers are from references as two clouds of vectors: the Fréchet distance of texts, beyond chance.

Source: FID, Heusel et al., 2017, https://arxiv.org/abs/1706.08500, section 3, of sentence vectors in place of pictures
(the formula stands in `frechet`). 0: no farther apart than two halves of one set.

Deviations: the mean distance of the same texts dealt anew by chance is subtracted, and nothing is below 0, as finite
samples of one origin have a distance above 0 that grows as they become fewer; of sets far apart, whose union spreads
more, a little too much is subtracted. Covariances are shrunk, and 64 principal components kept, since few texts have
singular covariances. Vectors come from the sentence encoder at `path`, without one from counts of character n-grams:
figures compare among themselves only. Fewer than 500 texts are refused.
"""

from collections.abc import Sequence

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfReferences
from fedloom.evaluation.corpus_metrics.frechet import distance
from fedloom.text.embedding import counted, embedded

__all__ = ["Fid"]


@plugin("fid")
class Fid(OfReferences):
    """The squared distance beyond chance; of unit vectors at most 4."""

    needs = ("sklearn",)

    high = 4.0
    higher_is_better = False
    least = 500

    path: str = ""
    """Folder of a sentence encoder with its tokenizer; empty: hashed n-grams of characters."""

    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the distance."""
        texts = [*found, *wanted]
        vectors_LD = embedded(texts, self.path).double().numpy() if self.path else counted(texts)
        return distance(*np.split(vectors_LD, 2)).excess
