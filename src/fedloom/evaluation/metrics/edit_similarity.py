"""One minus the edit distance of prediction and reference over the length of the longer, in characters.

Source: Levenshtein, 1966, Soviet Physics Doklady 10(8): insertions, deletions and substitutions cost 1. Both are
compared after the normalisation of `exact_match`; two texts of which nothing is left then are alike.
"""

import numpy as np

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference, normalise

__all__ = ["EditSimilarity", "edit_distance"]


@plugin("edit_similarity")
class EditSimilarity(OfReference):
    """1 for equal texts, 0 for texts without a character in common."""

    def score(self, text: str, reference: str) -> float:
        """Return the similarity."""
        found, wanted = normalise(text), normalise(reference)
        longest = max(len(found), len(wanted))
        return 1 - edit_distance(found, wanted) / longest if longest else 1.0


def edit_distance(first: str, second: str) -> int:
    """Return the least number of insertions, deletions and substitutions that turn one text into the other.

    A row of the usual table at a time: insertions chain along it, so they are a running minimum of cost minus place.
    """
    letters = np.array([ord(letter) for letter in second])
    places = np.arange(len(second) + 1)
    row = places
    for letter in first:
        best = row + 1
        best[1:] = np.minimum(best[1:], row[:-1] + (letters != ord(letter)))
        row = np.minimum.accumulate(best - places) + places
    return int(row[-1])
