"""Keys and masks against published vectors and another way to make them; nothing loads the library unasked."""

import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from fedloom.base import extras
from fedloom.base.errors import ConfigError
from fedloom.secure_sum import masks


def test_public_and_agreed_keys_are_those_of_rfc_7748():
    anna = masks.key_of(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4ae5b6bfc27c0a1d4e1a1b6d04d5b5"[:64]))
    ben = masks.key_of(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert masks.public_key(ben).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    one = masks.agreed(anna, masks.public_key(ben), purpose=b"x")
    assert one == masks.agreed(ben, masks.public_key(anna), purpose=b"x")
    assert one != masks.agreed(anna, masks.public_key(ben), purpose=b"y")


def test_derived_keys_are_those_of_rfc_5869():
    assert masks.derived(b"\x0b" * 22, purpose=b"").hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    )


def test_masks_are_the_counter_mode_of_aes_256():
    key = bytes(range(32))
    row = np.zeros(4 * 9_000, dtype=np.uint32)  # more than one piece
    masks.add_mask(row, key)
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    stream = block.update(b"".join(counter.to_bytes(16, "big") for counter in range(9_000)))
    assert row.astype("<u4").tobytes() == stream


@given(st.integers(0, 70_000), st.binary(min_size=32, max_size=32))
def test_a_mask_that_is_added_and_taken_off_leaves_the_row(size, key):
    row = np.arange(size, dtype=np.uint32)
    masks.add_mask(row, key)
    assert size < 8 or (row != np.arange(size, dtype=np.uint32)).any()
    masks.add_mask(row, key, sign=-1)
    assert (row == np.arange(size, dtype=np.uint32)).all()


def test_the_command_line_and_the_modules_do_not_load_the_library():
    code = (
        "import sys, fedloom.cli.main, fedloom.secure_sum.party, fedloom.secure_sum.accountant; "
        "sys.exit(any(name.partition('.')[0] == 'cryptography' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_library_is_refused_by_the_name_of_its_extra(monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match=r"secure_sum: needs cryptography.*fedloom\[deploy\]"):
        extras.library("cryptography.hazmat", "secure_sum")
