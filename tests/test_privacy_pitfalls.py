"""What docs/privacy.md says of other people's formulas, computed; none of it is a setting."""

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest

from fedloom.contracts import Mechanism
from fedloom.plugin import lookup, names
from fedloom.privacy import _accounting as accounting
from test_privacy_accounting import TABLE

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "privacy.md").read_text()
RELEASED = [(1, 7.28e-7), (0.1, 7.28e-6), (0.01, 7.28e-5), (0.001, 7.28e-4)]


def released_sigma(epsilon):
    """The released feddp formula for Fed-WildChat: no guarantee, see docs/privacy.md."""
    clients, sampled, rounds, samples = 100, 5, 100, 52_703
    reach = 2 * 2e-5 * 1.0 / (samples / clients)
    return reach * math.sqrt(2 * sampled / clients * rounds * math.log(1 / 1e-4)) / epsilon


def rows_of_document():
    cells = [re.findall(r"[^|\s][^|]*", line) for line in TEXT.splitlines() if re.match(r"\| [\d.]+ \|", line)]
    return [tuple(float(cell) for cell in row) for row in cells]


@pytest.mark.parametrize(("epsilon", "sigma"), RELEASED)
def test_released_feddp_sigma_is_the_one_of_the_document(epsilon, sigma):
    assert released_sigma(epsilon) == pytest.approx(sigma, rel=1e-3)


def test_document_lists_the_released_sigmas():
    assert [row for row in rows_of_document() if len(row) == 2] == RELEASED


def test_document_lists_the_calibration_table():
    assert [row for row in rows_of_document() if len(row) == 4] == TABLE


def test_proper_multiplier_beside_feddp_is_the_one_of_the_document():
    found = accounting.calibrate("pld", 1.0, rate=0.05, uses=100, delta=1e-4)
    assert found == pytest.approx(1.86, rel=0.005)


def test_proper_noise_is_fifty_thousand_times_the_released_one():
    assert 1.86 * 0.1 / 5 / released_sigma(1) == pytest.approx(50_000, rel=0.05)


def test_no_mechanism_takes_a_deviation_without_a_clip():
    settings = {field.name for name in names(Mechanism) for field in fields(lookup(Mechanism, name))}
    assert not {name for name in settings if "sigma" in name}
