"""Messages cross JSON unchanged, and reading refuses whatever is not exactly one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.base.errors import DataError
from fedloom.secure_sum.messages import (
    Advert,
    Box,
    Confirmation,
    Confirmations,
    MaskedRow,
    Opened,
    Roster,
    Shares,
    Survivors,
)
from support.secure_sums import Table, terms_of

TERMS = terms_of(4, threshold=3)
A, B, C, D = TERMS.clients


@pytest.fixture(scope="module")
def sent():
    """One message of each kind of a real sum in which one client is lost."""
    table = Table(TERMS, until="confirm", lost=(D,))
    opened = table.parties[A].unmask(table.confirmations[A])
    return [
        table.roster.adverts[0],
        table.roster,
        table.shares[A],
        table.boxes[A],
        table.survivors,
        table.confirmed[A],
        table.confirmations[B],
        opened,
    ]


def test_every_message_comes_back_from_json_as_it_was(sent):
    assert [type(one) for one in sent] == [
        Advert, Roster, Shares, Box, Survivors, Confirmation, Confirmations, Opened
    ]  # fmt: skip
    for one in sent:
        assert type(one).from_table(json.loads(json.dumps(one.to_table())), TERMS) == one


def paths(table, path=()):
    """Every place in a table, the leaves among them."""
    yield path
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, one in items:
        yield from paths(one, (*path, key))


def with_change(table, path, change):
    if not path:
        return change(table)
    copy = dict(table) if isinstance(table, dict) else list(table)
    copy[path[0]] = with_change(copy[path[0]], path[1:], change)
    return copy


def worse(value, path):
    """Things of other kinds and sizes than a value is; signatures may have any size."""
    others = [None, 7, 1.5, True, b"", {"": ""}, [[]], ["somebody"], "somebody", "zz", ""]
    if isinstance(value, str):
        others += [value + "0", value.upper(), " " + value, value.encode()]
        others += [] if {"signature", "signatures"} & set(path) else [value + "00", value[:-2]]
    if isinstance(value, dict):
        others += [{**value, "more": 1}, dict(list(value.items())[1:])] if "sender" in value else [{**value, "x": "0"}]
    if isinstance(value, list) and value:
        others += [[*value, value[0]], value * 9] + ([value[::-1]] if len(value) > 1 else [])
    return [other for other in others if other != value or type(other) is not type(value)]


def test_whatever_is_put_in_place_of_any_part_is_refused(sent):
    tried = 0
    for one in sent:
        table = one.to_table()
        for path in paths(table):
            for other in worse(at(table, path), path):
                with pytest.raises(DataError, match="secure sum, round 0"):
                    type(one).from_table(with_change(table, path, lambda _, other=other: other), TERMS)
                tried += 1
    assert tried > 500


def at(table, path):
    for key in path:
        table = table[key]
    return table


def test_each_bit_of_a_message_matters(sent):
    """A table that is read at all is read as another message."""
    for one in sent:
        text = json.dumps(one.to_table(), sort_keys=True)
        for place in range(0, len(text), 7):
            other = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
            try:
                read = type(one).from_table(json.loads(other), TERMS)
            except (DataError, json.JSONDecodeError):
                continue
            assert read != one


def nested(inner):
    keys = st.sampled_from(["sender", "sealed", "names", A])
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), nested, max_leaves=6))
def test_no_junk_is_read(junk):
    for kind in (Advert, Shares, Box, Confirmation, Opened):
        with pytest.raises(DataError):
            kind.from_table(junk, TERMS)


def test_rows_cross_as_bytes():
    row = np.array([1, 2**32 - 1, 256, 0], dtype=np.uint32)
    data = MaskedRow(A, row).to_bytes()
    assert data == bytes([1, 0, 0, 0, 255, 255, 255, 255, 0, 1, 0, 0, 0, 0, 0, 0])
    assert (MaskedRow.from_bytes(A, data, TERMS).row_S == row).all()


@pytest.mark.parametrize("size", [0, 15, 17, 20])
def test_rows_of_another_size_are_refused(size):
    with pytest.raises(DataError, match=f"found {size} bytes, allowed is 16"):
        MaskedRow.from_bytes(A, bytes(size), TERMS)


def test_rows_of_strangers_are_refused():
    with pytest.raises(DataError, match="a name that is not of this sum"):
        MaskedRow.from_bytes("somebody", bytes(16), TERMS)
