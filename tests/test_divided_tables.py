"""tools/tables.py: a table in parts that share no row, measured by the public part alone."""

import csv

import numpy as np
import pytest

from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Source
from support.tools import tool


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    assert tool("tables").main(["--out", str(folder), "--seeds", "2"]) == 0
    return folder


def rows(folder, seed, part):
    with (folder / str(seed) / f"{part}.csv").open() as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def test_parts_share_no_row_and_hold_all(made):
    parts = [rows(made, 0, part) for part in ("public", "test", "train")]
    assert [len(part) for part in parts] == [100, 200, 269]
    assert len(set().union(*parts)) == 569


def test_seeds_deal_differently(made):
    assert rows(made, 0, "test") != rows(made, 1, "test")


def test_public_rows_alone_say_what_a_measure_is_told_in(made):
    public, train = (np.array([row[:-1] for row in rows(made, 0, part)], float) for part in ("public", "train"))
    np.testing.assert_allclose(public.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(public.std(0), 1, atol=1e-4)
    assert np.abs(train.mean(0)).max() > 1e-3


def test_the_source_reads_them(made):
    paths = {key: str(made / "0" / f"{part}.csv") for key, part in (("path", "train"), ("test_path", "test"))}
    found = lookup(Source, "table")(**paths, public_path=str(made / "0" / "public.csv")).load()
    assert {split: len(part) for split, part in found.items()} == {"train": 269, "test": 200, "public": 100}
    assert {one.label for one in found["train"]} == {"benign", "malignant"} and len(found["test"][0].values) == 30
