"""Rows as one matrix: it grows, moves to a file above its limit, and leaves nothing behind."""

import gc
import os
import tempfile
from collections import namedtuple

import numpy as np
import pytest
import torch

from fedloom.base import rng
from fedloom.base import rows as base_rows
from fedloom.base.errors import MemoryExceededError
from fedloom.base.rows import RowMatrix

ROW_BYTES = 4 * 1000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def rows(count):
    return torch.randn(count, 1000, generator=rng.generator("rows", count))


def filled(rows_NP, *, limit_bytes):
    matrix = RowMatrix(rows_NP[0], limit_bytes=limit_bytes)
    for row_P in rows_NP:
        matrix.append(row_P)
    return matrix


@pytest.mark.parametrize("limit_rows", [0, 4, 8, 1000])
@pytest.mark.parametrize("count", [1, 4, 5, 33])
def test_matrix_holds_the_rows_in_order(folder, limit_rows, count):
    rows_NP = rows(count)
    assert torch.equal(filled(rows_NP, limit_bytes=limit_rows * ROW_BYTES).rows_NP, rows_NP)


@pytest.mark.parametrize("limit_rows", [0, 1000])
def test_matrix_is_contiguous(folder, limit_rows):
    assert filled(rows(5), limit_bytes=limit_rows * ROW_BYTES).rows_NP.is_contiguous()


def test_rows_keep_their_dtype(folder):
    assert filled(rows(2).double(), limit_bytes=0).rows_NP.dtype == torch.float64


def test_matrix_below_its_limit_is_in_memory():
    assert not filled(rows(8), limit_bytes=8 * ROW_BYTES).in_file


def test_matrix_above_its_limit_is_in_a_file(folder):
    assert filled(rows(9), limit_bytes=8 * ROW_BYTES).in_file


def test_rows_above_the_limit_are_memory_mapped(folder):
    matrix = filled(rows(9), limit_bytes=8 * ROW_BYTES)
    assert type(vars(matrix)["_matrix"]) is np.memmap


def test_file_has_no_name_while_it_is_used(folder):
    matrix = filled(rows(9), limit_bytes=0)
    assert (os.listdir(folder), matrix.in_file) == ([], True)


def test_file_is_closed_with_its_matrix(folder):
    matrix = filled(rows(9), limit_bytes=0)
    file = vars(matrix)["_file"]
    del matrix
    gc.collect()
    assert file.closed


def test_rows_outlive_their_matrix(folder):
    rows_NP = rows(9)
    view_NP = filled(rows_NP, limit_bytes=0).rows_NP
    gc.collect()
    assert torch.equal(view_NP, rows_NP)


def test_changing_a_row_afterwards_does_not_change_the_matrix():
    rows_NP = rows(2)
    kept_NP = rows_NP.clone()
    matrix = filled(rows_NP, limit_bytes=1 << 20)
    rows_NP.zero_()
    assert torch.equal(matrix.rows_NP, kept_NP)


def test_full_folder_is_refused_with_advice(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(base_rows.shutil, "disk_usage", lambda _: usage(100, 90, 10))
    text = r"^rows of 16,000 bytes exceed limit_bytes, .* has 10 bytes left: let TMPDIR name a larger one"
    with pytest.raises(MemoryExceededError, match=text):
        filled(rows(1), limit_bytes=0)
