"""What docs/privacy.md says of other people's formulas, computed; none of it is a setting."""

import re
from dataclasses import fields

import pytest

from fedloom.base.plugin import lookup, names
from fedloom.contracts.federated import Mechanism
from fedloom.federated.privacy import _accounting as accounting
from support.accounting import RELEASED, TABLE, released_sigma
from support.paths import ROOT

TEXT = (ROOT / "docs" / "privacy.md").read_text()


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
