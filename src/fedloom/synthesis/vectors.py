"""How alike documents are: by TF-IDF over words and pairs of words, or by a sentence encoder."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import library
from fedloom.contracts.synthesis import Similarities
from fedloom.text.embedding import embedded
from fedloom.text.words import words

__all__ = ["similarities", "terms", "tfidf_cosines"]


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
    if not any(map(words, others)):  # the library refuses a corpus without a word
        return np.zeros((len(texts), len(others)))
    vectoriser = library("sklearn.feature_extraction.text").TfidfVectorizer(analyzer=terms)
    theirs = vectoriser.fit_transform(others)
    return (vectoriser.transform(texts) @ theirs.T).toarray()


def terms(text: str) -> list[str]:
    """Return the words of a text and its pairs of neighbouring words."""
    single = words(text)
    return single + [f"{first} {second}" for first, second in pairwise(single)]
