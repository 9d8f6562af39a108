"""How alike documents are: by TF-IDF over words and pairs of words, or by a sentence encoder."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import library
from fedloom.contracts.synthesis import Similarities
from fedloom.text.embedding import embedded
from fedloom.text.words import words

__all__ = ["ROWS", "similarities", "terms", "tfidf_blocks", "tfidf_cosines", "tfidf_pairs"]

ROWS = 256
"""Texts that are compared with all others at once, where not all need be."""


def similarities(documents: Sequence[str], pool: Sequence[str], *, encoder: str = "") -> Similarities:
    """Return the cosines of N documents to the M of the pool, and of those to each other.

    `encoder` is the folder of a sentence encoder; without one, TF-IDF is fitted on the pool (extra `text`).
    """
    texts = [*documents, *pool]
    if encoder:
        vectors = embedded(texts, encoder).double().numpy()
        cosines = vectors @ vectors[len(documents) :].T
    else:
        cosines = tfidf_cosines(texts, pool)
    return Similarities(cosines[: len(documents)], cosines[len(documents) :])


def tfidf_cosines(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
    """Return the cosines [N, M] by TF-IDF of the words and pairs of words that the M others have, fitted on those."""
    cosines_NM = np.empty((len(texts), len(others)))
    for number, block in enumerate(tfidf_blocks(texts, others)):
        cosines_NM[number * ROWS : (number + 1) * ROWS] = block
    return cosines_NM


def tfidf_blocks(texts: Sequence[str], others: Sequence[str]) -> Iterator[NDArray[np.float64]]:
    """Yield the rows of `tfidf_cosines`, a few hundred at a time, for whoever needs no more at once."""
    ours, theirs = _tfidf(texts, others)
    for start in range(0, len(texts), ROWS):
        yield (ours[start : start + ROWS] @ theirs.T).toarray()


def tfidf_pairs(texts: Sequence[str], others: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return of `tfidf_cosines` those of a text's and another's place alone; memory grows with the pairs."""
    ours, theirs = _tfidf(texts, others)
    found: list[float] = []
    for start in range(0, len(pairs), ROWS):
        rows, columns = (list(side) for side in zip(*pairs[start : start + ROWS], strict=True))
        found += np.asarray(ours[rows].multiply(theirs[columns]).sum(axis=1)).ravel().tolist()
    return found


def _tfidf(texts: Sequence[str], others: Sequence[str]) -> tuple[Any, Any]:
    """Return both as rows of unit length, sparse, over what the others say; without any word as rows of zeros."""
    if not any(map(words, others)):  # the library refuses a corpus without a word
        empty = library("scipy.sparse").csr_matrix
        return empty((len(texts), 1)), empty((len(others), 1))
    vectoriser = library("sklearn.feature_extraction.text").TfidfVectorizer(analyzer=terms)
    theirs = vectoriser.fit_transform(others)
    return (vectoriser.transform(texts) if len(texts) else theirs[:0]), theirs


def terms(text: str) -> list[str]:
    """Return the words of a text and its pairs of neighbouring words."""
    single = words(text)
    return single + [f"{first} {second}" for first, second in pairwise(single)]
