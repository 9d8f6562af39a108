"""Parts of a surface: the faces within a mask, made a clean surface with edges."""

import numpy as np

from fedloom.base.errors import DataError
from fedloom.people.meshes import Ints, components, edges

__all__ = ["closed", "patch"]


def patch(faces_F3: Ints, inside_M: Ints) -> Ints:
    """Return the faces all of whose vertices are inside: the largest part, without ears and without points of contact.

    DataError if there is none.
    """
    kept_F3 = faces_F3[inside_M[faces_F3].all(1)]
    while len(kept_F3):
        directed_E2 = kept_F3[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        _, place, count = np.unique(np.sort(directed_E2, axis=1), axis=0, return_inverse=True, return_counts=True)
        open_F3 = (count[place.ravel()] == 1).reshape(-1, 3)
        leaving_M = np.bincount(directed_E2[open_F3.ravel(), 0], minlength=len(inside_M))
        ill_F = (open_F3.sum(1) >= 2) | (leaving_M > 1)[kept_F3].any(1)
        if not ill_F.any():
            part_F = components(kept_F3, len(inside_M))
            return kept_F3[part_F == np.bincount(part_F).argmax()]
        kept_F3 = kept_F3[~ill_F]
    raise DataError("garment: found no part of the body that it covers, allowed is one; does the body stand in it?")


def closed(faces_F3: Ints, inside_M: Ints, rings: int = 2) -> Ints:
    """Return a mask of vertices with its holes and clefts of up to twice as many rings closed."""
    edges_E2, _ = edges(faces_F3)
    both_E2 = np.concatenate([edges_E2, edges_E2[:, ::-1]])

    def touched(mask_M: Ints) -> Ints:
        return mask_M | (np.bincount(both_E2[:, 0], mask_M[both_E2[:, 1]], len(mask_M)) > 0)

    grown_M = inside_M
    for _ in range(rings):
        grown_M = touched(grown_M)
    outside_M = ~grown_M
    for _ in range(rings):
        outside_M = touched(outside_M)
    return inside_M | ~outside_M
