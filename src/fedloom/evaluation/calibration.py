"""How far a classifier's confidence lies from how often it is right."""

from collections.abc import Sequence

import numpy as np

__all__ = ["CALIBRATION", "calibration_error"]

CALIBRATION = "calibration_error"
"""What the score is called."""
_BINS = 15


def calibration_error(confidence_N: Sequence[float], right_N: Sequence[float]) -> float:
    """Return the expected calibration error: sum over bins of confidence of n_b / N |accuracy_b - confidence_b|.

    Guo et al., 2017, https://arxiv.org/abs/1706.04599, eq. 3, with 15 bins of equal width as there.

    >>> calibration_error([0.9, 0.9, 0.5, 0.5], [1, 1, 1, 0])
    0.05
    """
    confidence, right = np.asarray(confidence_N, np.float64), np.asarray(right_N, np.float64)
    place_N = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)  # bins are ((b - 1) / B, b / B]
    gap_B = np.bincount(place_N, weights=right - confidence, minlength=_BINS)
    return round(float(np.abs(gap_B).sum() / len(confidence)), 12)
