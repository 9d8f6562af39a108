"""Pictures' likeness against scikit-image, and what is refused."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fedloom.base.errors import DataError
from fedloom.people.image_metrics import psnr_db, ssim


@pytest.fixture(scope="module")
def pair():
    random = np.random.default_rng(0)
    smooth = np.stack([np.outer(np.linspace(0, 1, 40), np.linspace(1, 0.2, 50))] * 3, 2)
    return smooth, (smooth + random.normal(size=smooth.shape) * 0.1).clip(0, 1)


def test_both_agree_with_scikit_image(pair):
    truth, noisy = pair
    options = {
        "channel_axis": 2,
        "data_range": 1.0,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    assert ssim(noisy, truth) == pytest.approx(structural_similarity(truth, noisy, **options), abs=1e-10)
    assert psnr_db(noisy, truth) == pytest.approx(peak_signal_noise_ratio(truth, noisy, data_range=1.0))


def test_a_picture_is_like_itself(pair):
    assert ssim(pair[0], pair[0]) == pytest.approx(1) and psnr_db(pair[0], pair[0]) == float("inf")


def test_only_marked_pixels_count(pair):
    truth, _ = pair
    spoilt = truth.copy()
    spoilt[:, :20] = 0
    right = np.zeros(truth.shape[:2], bool)
    right[:, 30:] = True
    assert psnr_db(spoilt, truth, right) == float("inf") and ssim(spoilt, truth, right) == pytest.approx(1)
    assert ssim(spoilt, truth, ~right) < 0.9 and psnr_db(spoilt, truth) < psnr_db(spoilt, truth, right)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda truth: (truth[:10], truth[:10], None), "above 10 pixels"),
        (lambda truth: (truth[:-1], truth, None), "resize"),
        (lambda truth: (truth * 255, truth, None), "divide by 255"),
        (lambda truth: (truth, truth * np.nan, None), "nan"),
        (lambda truth: (truth, truth, np.zeros(truth.shape[:2], bool)), "marks 0 pixels"),
    ],
)
def test_odd_pictures_are_refused(pair, change, told):
    for measure in (psnr_db, ssim):
        with pytest.raises(DataError, match=told):
            measure(*change(pair[0]))


def test_a_mask_at_the_edge_alone_has_no_whole_window(pair):
    edge = np.zeros(pair[0].shape[:2], bool)
    edge[0] = True
    with pytest.raises(DataError, match="no marked pixel"):
        ssim(*pair, edge)
