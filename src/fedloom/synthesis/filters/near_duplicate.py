"""Each text once, nearly: a candidate is dropped that resembles one kept before it, or a row of the pool.

Resemblance of instruction and response together, or of instructions alone where a candidate has no response yet, is the
cosine of TF-IDF fitted on all candidates and the pool (never on two texts alone, where the inverse frequencies mean
nothing), the cosine of a sentence encoder's vectors, or the Jaccard index of words and pairs of words, estimated by
MinHash (Broder, 1997, https://doi.org/10.1109/SEQUEN.1997.666900) and looked up by locality-sensitive hashing (library
`datasketch`, extra `minhash`), which is not quadratic in the texts.

Deviations: the bound 0.6 is that of TF-IDF (as in `synthesis/pool.py`); the other two want their own. MinHash errs by
about 0.05 in the index, and its look-up misses some pairs near the bound.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import ConfigError
from fedloom.base.extras import library, require
from fedloom.base.plugin import Fraction, plugin
from fedloom.base.rng import seed_of
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.synthesis.vectors import ROWS, terms, tfidf_blocks
from fedloom.text.embedding import embedded

__all__ = ["NearDuplicate"]

Near = Iterator[dict[int, float]]
"""Of each candidate the texts, by place, that resemble it too much, and how much; one at a time."""

_PERMUTATIONS = 128
_SURELY_FOUND = 0.9  # a look-up that asks for more resemblance than that misses much, and near 1 the library refuses it
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
        """Refuse a missing library, an encoder where none is used, and a bound that nothing can pass."""
        require(f"'{self.name}'", *_LIBRARIES[self.by])
        if bool(self.encoder) != (self.by == "embedding"):
            raise ConfigError(
                f"encoder: found '{self.encoder}' with by = '{self.by}', allowed is the folder of a sentence encoder "
                "with by = 'embedding' and nothing else; set one of the two."
            )
        if self.by == "minhash" and self.most == 1:
            raise ConfigError(
                f"most: found {self.most:g} with by = 'minhash', which lets copies through, allowed is less than 1; "
                "set 0.999 to drop copies alone, or leave the filter out."
            )

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and the largest resemblance of what is dropped, each beside those kept before it."""
        rows = (*candidates, *around.pool)
        pairs = self._near([f"{one.instruction}\n{one.response}" for one in rows], _places(candidates, answered=True))
        questions = self._near([one.instruction for one in rows], _places(candidates, answered=False))
        kept = set(range(len(candidates), len(rows)))
        verdicts: list[Verdict] = []
        for place, one in enumerate(candidates):
            near = next(pairs if one.response else questions)
            closest = max(((score, other) for other, score in near.items() if other in kept), default=None)
            if closest is None:
                kept.add(place)
                verdicts.append(Verdict())
            else:
                reason = "near_pool" if closest[1] >= len(candidates) else "near_duplicate"
                verdicts.append(Verdict(reason, closest[0]))
        return verdicts

    def _near(self, texts: Sequence[str], places: Sequence[int]) -> Near:
        if not places:
            return iter(())
        if self.by == "minhash":
            return _by_minhash(texts, places, self.most)
        if self.by == "tfidf":
            return _above(tfidf_blocks([texts[at] for at in places], texts), self.most)
        vectors = embedded(texts, self.encoder).double().numpy()
        starts = range(0, len(places), ROWS)
        return _above((vectors[[*places[at : at + ROWS]]] @ vectors.T for at in starts), self.most)

    def brings_in(self) -> str:
        """A candidate goes where another is."""
        return "filters: 'near_duplicate'"


def _places(candidates: Sequence[Candidate], *, answered: bool) -> list[int]:
    return [at for at, one in enumerate(candidates) if bool(one.response) is answered]


def _above(blocks: Iterable[NDArray[np.float64]], most: float) -> Near:
    for cosines_L in (np.minimum(row, 1.0) for block in blocks for row in block):  # rounding puts equal texts above 1
        yield {at: float(cosines_L[at]) for at in np.flatnonzero(cosines_L > most).tolist()}


def _by_minhash(texts: Sequence[str], places: Sequence[int], most: float) -> Near:
    sketching = library("datasketch")
    sets = [[term.encode(errors="replace") for term in terms(text)] for text in texts]
    sketches = sketching.MinHash.bulk(sets, num_perm=_PERMUTATIONS, seed=seed_of("minhash") % 2**31)
    # A pair that is looked up in vain costs time alone, one that is missed is a duplicate kept.
    least = min(most, _SURELY_FOUND)
    index = sketching.MinHashLSH(threshold=least, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    for place, sketch in enumerate(sketches):
        index.insert(place, sketch)
    for one in (sketches[at] for at in places):
        found = {at: float(one.jaccard(sketches[at])) for at in index.query(one)}
        yield {at: score for at, score in found.items() if score > most}
