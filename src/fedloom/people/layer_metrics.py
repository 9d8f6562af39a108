"""How good layers are: labels by area, seams, the roughness of an edge, and how a garment sits on a body."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.people.loops import spaced
from fedloom.people.meshes import Floats, Ints, Mesh, edges
from fedloom.people.nearest import NearestPoints

__all__ = [
    "Penetration",
    "edge_strain",
    "label_iou",
    "mean_label_iou",
    "penetration",
    "roughness_mm",
    "seam_chamfer_cm",
    "signed_bias_mm",
]


def label_iou(labels_N: Ints, truth_N: Ints, areas_N: Floats, classes: Sequence[int]) -> dict[int, float]:
    """Return intersection over union by area of each class that the labels or the truth have.

    Raises DataError for arrays of different lengths.
    """
    if not len(labels_N) == len(truth_N) == len(areas_N):
        found = (len(labels_N), len(truth_N), len(areas_N))
        raise DataError(f"labels, truth and areas: found {found} points, allowed is one length for all.")
    result: dict[int, float] = {}
    for kind in classes:
        ours_N, true_N = labels_N == kind, truth_N == kind
        union = float(areas_N[ours_N | true_N].sum())
        if union > 0:
            result[kind] = float(areas_N[ours_N & true_N].sum()) / union
    return result


def mean_label_iou(labels_N: Ints, truth_N: Ints, areas_N: Floats, classes: Sequence[int]) -> float:
    """Return the mean of `label_iou` over the classes that the labels or the truth have; DataError if none."""
    each = label_iou(labels_N, truth_N, areas_N, classes)
    if not each:
        raise DataError(f"labels: found none of the classes {list(classes)}, allowed is at least one.")
    return sum(each.values()) / len(each)


def seam_chamfer_cm(seams: Sequence[Floats], truth: Sequence[Floats], spacing_m: float = 0.002) -> float:
    """Return the mean distance in cm between closed seams [L, 3], both ways; DataError if one side has none."""
    if not seams or not truth:
        raise DataError(f"seams: found {len(seams)} and {len(truth)} of the truth, allowed is at least one each.")
    ours, true = (np.concatenate([spaced(loop, spacing_m) for loop in loops]) for loops in (seams, truth))
    tree = library("scipy.spatial", "people").cKDTree
    return 50 * float(tree(true).query(ours)[0].mean() + tree(ours).query(true)[0].mean())


def roughness_mm(loop_L3: Floats, spacing_m: float = 0.01) -> float:
    """Return the mean length in mm of the second difference along a closed loop of points.

    The loop is measured at an even spacing, so that neither its length nor the number of its points matters: a circle
    of radius r has `spacing_m`² / r.
    """
    even = spaced(loop_L3, spacing_m)
    second = np.roll(even, 1, axis=0) - 2 * even + np.roll(even, -1, axis=0)
    return 1000 * float(np.linalg.norm(second, axis=1).mean())


@dataclass(frozen=True)
class Penetration:
    """How a garment enters a body."""

    percent: float
    """Of its vertices."""
    mean_depth_mm: float
    """Of those within; 0 where there are none."""
    deepest_mm: float


def penetration(garment_M3: Floats, body: NearestPoints) -> Penetration:
    """Return how many vertices [M, 3] of a garment lie within a body, and how deep."""
    depth_M = -body.signed(garment_M3)[0]
    within = depth_M[depth_M > 1e-6]  # what touches is no penetration
    if not len(within):
        return Penetration(0.0, 0.0, 0.0)
    return Penetration(100 * len(within) / len(depth_M), 1000 * float(within.mean()), 1000 * float(within.max()))


def edge_strain(before: Mesh, after_M3: Floats) -> float:
    """Return the mean relative change of edge lengths, 0 for a rigid motion."""
    edges_E2, _ = edges(before.faces)
    first_E, second_E = (
        np.linalg.norm(at[edges_E2[:, 0]] - at[edges_E2[:, 1]], axis=1) for at in (before.vertices, after_M3)
    )
    if not (first_E > 0).all():
        raise DataError("edge strain: found an edge without length, allowed are edges of some length; clean the mesh.")
    return float(np.abs(second_E / first_E - 1).mean())


def signed_bias_mm(points_N3: Floats, truth: NearestPoints) -> tuple[float, float]:
    """Return the mean distance of points from a surface in mm, and its signed mean: above 0 they lie outside."""
    signed_N, _ = truth.signed(points_N3)
    return 1000 * float(np.abs(signed_N).mean()), 1000 * float(signed_N.mean())
