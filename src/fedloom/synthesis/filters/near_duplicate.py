"""Each text once, nearly: a candidate is dropped that resembles one kept before it, or a row of the pool.

Resemblance of instruction and response together is the cosine of TF-IDF fitted on all candidates and the pool (never on
two texts alone, where the inverse frequencies mean nothing), the cosine of a sentence encoder's vectors, or the Jaccard
index of words and pairs of words, estimated by MinHash (Broder, 1997, https://doi.org/10.1109/SEQUEN.1997.666900) and
looked up by locality-sensitive hashing (library `datasketch`, extra `minhash`), which is not quadratic in the texts.

Deviations: the bound 0.6 is that of TF-IDF (as in `synthesis/pool.py`); the other two want their own. MinHash errs by
about 0.05 in the index, and its look-up misses some pairs near the bound.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import ConfigError
from fedloom.base.extras import library, require
from fedloom.base.plugin import Fraction, plugin
from fedloom.base.rng import seed_of
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.synthesis.vectors import terms, tfidf_cosines
from fedloom.text.embedding import embedded

__all__ = ["NearDuplicate"]

Near = list[dict[int, float]]
"""Of each candidate the texts, by place, that resemble it too much, and how much."""

_PERMUTATIONS = 128
_LIBRARIES = {"tfidf": ("sklearn",), "minhash": ("datasketch",), "embedding": ()}


@plugin("near_duplicate")
class NearDuplicate(Filter):
    """Drops candidates that say nearly what a kept one, or a row of the pool, says already."""

    reasons: ClassVar[tuple[str, ...]] = ("near_duplicate", "near_pool")

    by: Literal["tfidf", "minhash", "embedding"] = "tfidf"
    """How texts are compared."""
    most: Fraction = 0.6
    """Most resemblance allowed."""
    encoder: str = ""
    """Folder of the sentence encoder, for `embedding`."""

    def check(self) -> None:
        """Refuse a missing library, and an encoder where none is used."""
        require(f"'{self.name}'", *_LIBRARIES[self.by])
        if bool(self.encoder) != (self.by == "embedding"):
            raise ConfigError(
                f"encoder: found '{self.encoder}' with by = '{self.by}', allowed is the folder of a sentence encoder "
                "with by = 'embedding' and nothing else; set one of the two."
            )

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and the largest resemblance of what is dropped, each beside those kept before it."""
        texts = [f"{one.instruction}\n{one.response}" for one in (*candidates, *around.pool)]
        kept = set(range(len(candidates), len(texts)))
        verdicts: list[Verdict] = []
        for place, near in enumerate(self._near(texts, len(candidates))):
            closest = max(((score, other) for other, score in near.items() if other in kept), default=None)
            if closest is None:
                kept.add(place)
                verdicts.append(Verdict())
            else:
                reason = "near_pool" if closest[1] >= len(candidates) else "near_duplicate"
                verdicts.append(Verdict(reason, closest[0]))
        return verdicts

    def _near(self, texts: Sequence[str], n_candidates: int) -> Near:
        if self.by == "minhash":
            return _by_minhash(texts, n_candidates, self.most)
        if self.by == "tfidf":
            return _above(tfidf_cosines(texts[:n_candidates], texts), self.most)
        vectors = embedded(texts, self.encoder).double().numpy()
        return _above(vectors[:n_candidates] @ vectors.T, self.most)

    def brings_in(self) -> str:
        """A candidate goes where another is."""
        return "filters: 'near_duplicate'"


def _above(cosines_NL: NDArray[np.float64], most: float) -> Near:
    cosines_NL = np.minimum(cosines_NL, 1.0)  # rounding puts equal texts a little above
    places = (np.flatnonzero(cosines_L > most).tolist() for cosines_L in cosines_NL)
    return [{at: float(cosines_L[at]) for at in found} for cosines_L, found in zip(cosines_NL, places, strict=True)]


def _by_minhash(texts: Sequence[str], n_candidates: int, most: float) -> Near:
    sketching = library("datasketch")
    sets = [[term.encode(errors="replace") for term in terms(text)] for text in texts]
    sketches = sketching.MinHash.bulk(sets, num_perm=_PERMUTATIONS, seed=seed_of("minhash") % 2**31)
    # A pair that is looked up in vain costs time alone, one that is missed is a duplicate kept.
    index = sketching.MinHashLSH(threshold=most, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    for place, sketch in enumerate(sketches):
        index.insert(place, sketch)
    alike = ({at: float(one.jaccard(sketches[at])) for at in index.query(one)} for one in sketches[:n_candidates])
    return [{at: score for at, score in found.items() if score > most} for found in alike]
