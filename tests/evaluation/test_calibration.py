"""Expected calibration error against a written-out oracle."""

import numpy as np
import pytest

from fedloom.evaluation.calibration import calibration_error


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_mean_gap_over_bins(seed):
    random = np.random.default_rng(seed)
    confidence, right = random.uniform(0.1, 1, 200), random.integers(0, 2, 200)
    total = 0.0
    for bin in range(15):
        inside = (confidence > bin / 15) & (confidence <= (bin + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(confidence, right) == pytest.approx(total)


@pytest.mark.parametrize(
    ("confidence", "right", "wanted"), [(1.0, 1, 0.0), (1.0, 0, 1.0), (0.0, 0, 0.0), (0.25, 0, 0.25)]
)
def test_the_ends_of_the_scale_lie_in_a_bin(confidence, right, wanted):
    assert calibration_error([confidence] * 4, [right] * 4) == pytest.approx(wanted)
