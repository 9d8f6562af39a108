"""Masks: uniform 32-bit numbers that two parties, or one party and who learns its seed, draw alike.

X25519 (RFC 7748) -> HKDF-SHA256 (RFC 5869) -> AES-256 in counter mode (NIST SP 800-38A), its bytes read as 32-bit
numbers, little-endian. Each key is used for one mask only, so that the counter always begins at 0.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.base.extras import library

__all__ = ["KEY_BYTES", "add_mask", "agreed", "derived", "key_of", "public_key"]

KEY_BYTES = 32

_CHUNK = 2**15
"""Numbers drawn at a time: 128 KiB of mask stay in the cache until they are added."""

_PRIMITIVES = "cryptography.hazmat.primitives"


@cache
def _part(name: str) -> Any:
    return library(f"{_PRIMITIVES}.{name}", "secure_sum")


def key_of(secret: bytes) -> Any:
    """Return the X25519 private key that 32 random bytes are."""
    return _part("asymmetric.x25519").X25519PrivateKey.from_private_bytes(secret)


def public_key(private: Any) -> bytes:
    """Return the 32 bytes that others may know of a private key."""
    return private.public_key().public_bytes_raw()


def agreed(private: Any, public: bytes, *, purpose: bytes) -> bytes:
    """Return the 32 bytes that two parties derive from one's private and the other's public key for a purpose.

    Raises DataError for a public key that gives everybody the same secret.
    """
    try:
        secret = private.exchange(_part("asymmetric.x25519").X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise DataError(
            f"key agreement: found a public key that is none ({error}); its owner must send its own."
        ) from error
    return derived(secret, purpose=purpose)


def derived(secret: bytes, *, purpose: bytes) -> bytes:
    """Return 32 bytes that a secret gives for a purpose (HKDF-SHA256 without salt)."""
    hashes, hkdf = _part("hashes"), _part("kdf.hkdf")
    return hkdf.HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(secret)


def add_mask(row_S: NDArray[np.uint32], key: bytes, *, sign: int = 1) -> None:
    """Add the mask of a key to a row [S] in place, modulo 2^32, or take it off with `sign` -1."""
    ciphers = _part("ciphers")
    stream = ciphers.Cipher(ciphers.algorithms.AES(key), ciphers.modes.CTR(bytes(16))).encryptor()
    zeros, drawn = bytes(4 * _CHUNK), bytearray(4 * _CHUNK + 15)  # the library wants room for one block more
    mask_C = np.frombuffer(drawn, dtype="<u4", count=_CHUNK)
    change = np.add if sign > 0 else np.subtract
    for start in range(0, len(row_S), _CHUNK):
        part_C = row_S[start : start + _CHUNK]
        stream.update_into(memoryview(zeros)[: 4 * len(part_C)], drawn)
        change(part_C, mask_C[: len(part_C)], out=part_C)
