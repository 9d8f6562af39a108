"""How alike documents are: by TF-IDF over words and pairs of words, or by a sentence encoder."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import library
from fedloom.contracts.synthesis import Similarities
from fedloom.text.embedding import embedded
from fedloom.text.words import words

__all__ = ["similarities", "tfidf"]

Vectors = NDArray[np.float64]


def similarities(documents: Sequence[str], pool: Sequence[str], *, encoder: str = "") -> Similarities:
    """Return the cosines of N documents to the M of the pool, and of those to each other.

    `encoder` is the folder of a sentence encoder; without one, TF-IDF is fitted on the pool (extra `text`).
    """
    if encoder:
        vectors = embedded([*documents, *pool], encoder).double().numpy()
        own, others = vectors[: len(documents)], vectors[len(documents) :]
    else:
        own, others = tfidf(documents, fitted_on=pool), tfidf(pool, fitted_on=pool)
    return Similarities(own @ others.T, others @ others.T)


def tfidf(texts: Sequence[str], *, fitted_on: Sequence[str]) -> Vectors:
    """Return unit vectors [N, W] of the words and pairs of words that the other texts have; zeros where none is."""
    vectoriser = library("sklearn.feature_extraction.text").TfidfVectorizer(analyzer=_terms)
    return vectoriser.fit(fitted_on).transform(texts).toarray()


def _terms(text: str) -> list[str]:
    single = words(text)
    return single + [f"{first} {second}" for first, second in pairwise(single)]
