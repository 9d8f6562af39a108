"""How alike two pictures are: signal to noise, and structure by local means and variances."""

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.base.extras import library
from fedloom.people.meshes import Floats

__all__ = ["psnr_db", "ssim"]

_SIGMA, _RADIUS = 1.5, 5  # 11 x 11 pixels


def psnr_db(picture_HWC: Floats, truth_HWC: Floats, where_HW: NDArray[np.bool_] | None = None) -> float:
    """Return the peak signal to noise ratio in dB of pictures of 0 to 1, over all pixels or some; infinite if alike.

    Raises DataError for pictures of different sizes, values beyond 0 to 1 and no pixel at all.
    """
    _refuse_odd(picture_HWC, truth_HWC, where_HW)
    square_HWC = (picture_HWC - truth_HWC) ** 2
    error = float((square_HWC if where_HW is None else square_HWC[where_HW]).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(picture_HWC: Floats, truth_HWC: Floats, where_HW: NDArray[np.bool_] | None = None) -> float:
    """Return the structural similarity of pictures of 0 to 1, -1 to 1, with a Gaussian of 11 x 11 pixels.

    The mean is over the channels and over all pixels with a whole window, or those of them that `where_HW` marks.
    Source: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861. Raises DataError as `psnr_db` does.
    """
    _refuse_odd(picture_HWC, truth_HWC, where_HW)
    first, second = _blurred(picture_HWC), _blurred(truth_HWC)
    spread_first = _blurred(picture_HWC**2) - first**2
    spread_second = _blurred(truth_HWC**2) - second**2
    both = _blurred(picture_HWC * truth_HWC) - first * second
    small_mean, small_spread = 0.01**2, 0.03**2
    alike_HWC = (2 * first * second + small_mean) * (2 * both + small_spread)
    alike_HWC /= (first**2 + second**2 + small_mean) * (spread_first + spread_second + small_spread)
    inner = (slice(_RADIUS, -_RADIUS),) * 2
    if where_HW is None:
        return float(alike_HWC[inner].mean())
    if not where_HW[inner].any():
        raise DataError(f"pictures: found no marked pixel {_RADIUS} or more from the edge, allowed is at least one.")
    return float(alike_HWC[inner][where_HW[inner]].mean())


def _blurred(picture_HWC: Floats) -> Floats:
    gaussian = library("scipy.ndimage", "people").gaussian_filter
    return gaussian(picture_HWC, (_SIGMA, _SIGMA, 0), radius=(_RADIUS, _RADIUS, 0))


def _refuse_odd(picture_HWC: Floats, truth_HWC: Floats, where_HW: NDArray[np.bool_] | None) -> None:
    if picture_HWC.shape != truth_HWC.shape or picture_HWC.ndim != 3 or min(picture_HWC.shape[:2]) <= 2 * _RADIUS:
        raise DataError(
            f"pictures: found {picture_HWC.shape} and {truth_HWC.shape}, allowed are two of one size [H, W, C] above "
            f"{2 * _RADIUS} pixels; resize one."
        )
    for name, values in (("picture", picture_HWC), ("truth", truth_HWC)):
        if not (values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"{name}: found {values.min():.3g} to {values.max():.3g}, allowed is 0 to 1; divide by 255?"
            )
    if where_HW is not None and (where_HW.shape != picture_HWC.shape[:2] or not where_HW.any()):
        raise DataError(
            f"pictures: found a mask {where_HW.shape} that marks {int(where_HW.sum())} pixels, allowed is one."
        )
