"""The six classes of a picture's parts, and what the labels of well-known parsers are called among them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError, suggest

__all__ = [
    "BACKGROUND",
    "COLOURS",
    "GARMENTS",
    "HAIR",
    "LABELS",
    "LOWER",
    "PARSERS",
    "SHOES",
    "SKIN",
    "UPPER",
    "common",
]

LABELS = ("background", "skin", "hair", "shoes", "upper", "lower")
BACKGROUND, SKIN, HAIR, SHOES, UPPER, LOWER = range(6)
GARMENTS = (UPPER, LOWER)
"""What is a layer of its own; hair and shoes stay with the body."""

COLOURS = np.array(
    [(255, 255, 255), (233, 190, 160), (92, 64, 51), (70, 70, 80), (46, 134, 171), (162, 59, 114)], np.uint8
)
"""A colour for each class, [K, 3]."""

_B, _SK, _HA, _SH, _UP, _LO = range(6)
PARSERS: Mapping[str, tuple[int, ...]] = {
    # Background, hat, hair, glove, sunglasses, upper clothes, dress, coat, socks, trousers, jumpsuit, scarf, skirt,
    # face, left and right arm, leg, shoe. A dress and a jumpsuit are outermost above: they count as upper.
    "lip": (_B, _HA, _HA, _SK, _SK, _UP, _UP, _UP, _SK, _LO, _UP, _UP, _LO, _SK, _SK, _SK, _SK, _SK, _SH, _SH),
    # Background, hat, hair, sunglasses, upper clothes, skirt, trousers, dress, belt, left and right shoe, face, left
    # and right leg, left and right arm, bag, scarf. A bag belongs to nobody's layer.
    "atr": (_B, _HA, _HA, _SK, _UP, _LO, _LO, _UP, _LO, _SH, _SH, _SK, _SK, _SK, _SK, _SK, _B, _UP),
    # Background, head, torso, upper and lower arms, upper and lower legs: parts of a body, not garments, so torso and
    # legs stand for what is worn there.
    "pascal": (_B, _SK, _UP, _SK, _SK, _LO, _LO),
    # Skin, hair, shoe, upper, lower, outer, as 4D-DRESS numbers its vertices; it has no background.
    "4d-dress": (_SK, _HA, _SH, _UP, _LO, _UP),
    "fedloom": (_B, _SK, _HA, _SH, _UP, _LO),
}
"""The common class of each label, by parser."""


def common(labels: NDArray[np.integer], parser: str, where: str) -> NDArray[np.uint8]:
    """Return a map of a parser's labels as common classes; DataError, naming `where`, for a label that it has not.

    >>> common(np.array([[0, 5], [9, 13]]), "lip", "view 0").tolist()
    [[0, 4], [5, 1]]
    """
    if parser not in PARSERS:
        raise DataError(f"{where}: no parser called '{parser}'. {suggest(parser, list(PARSERS))}")
    table = np.array(PARSERS[parser], np.uint8)
    odd = np.unique(labels[(labels < 0) | (labels >= len(table))])
    if len(odd):
        raise DataError(f"{where}: found label {odd[0]}, parser '{parser}' has 0 to {len(table) - 1}; name its parser.")
    return table[labels]
