"""A letter from one party to another through the server, who can neither read nor alter it, nor pass it elsewhere.

ChaCha20-Poly1305 (RFC 8439) under a key that X25519 and HKDF give for run, round, sender and receiver. A key seals one
letter only, so that its nonce is 0.
"""

from typing import Any

from fedloom.base.extras import library
from fedloom.secure_sum.masks import agreed
from fedloom.secure_sum.terms import SecureSumError, Terms, packed

__all__ = ["TAG_BYTES", "sealed", "unsealed"]

TAG_BYTES = 16


def _way(terms: Terms, sender: str, receiver: str) -> bytes:
    return packed(b"fedloom secure sum letter", terms.digest, sender.encode(), receiver.encode())


def sealed(letter: bytes, private: Any, public: bytes, terms: Terms, *, sender: str, receiver: str) -> bytes:
    """Return the letter sealed by the sender's private for the receiver's public key, 16 bytes longer."""
    way = _way(terms, sender, receiver)
    cipher = library("cryptography.hazmat.primitives.ciphers.aead", "secure_sum").ChaCha20Poly1305
    return cipher(agreed(private, public, purpose=way)).encrypt(bytes(12), letter, way)


def unsealed(packet: bytes, private: Any, public: bytes, terms: Terms, *, sender: str, receiver: str) -> bytes:
    """Return the letter, by the receiver's private and the sender's public key.

    Raises SecureSumError for one that was altered, or sealed for another run, round, sender or receiver.
    """
    way = _way(terms, sender, receiver)
    cipher = library("cryptography.hazmat.primitives.ciphers.aead", "secure_sum").ChaCha20Poly1305
    invalid = library("cryptography.exceptions", "secure_sum").InvalidTag
    try:
        return cipher(agreed(private, public, purpose=way)).decrypt(bytes(12), packet, way)
    except invalid as error:
        raise SecureSumError(
            f"secure sum, round {terms.round}: found a letter from '{sender}' to '{receiver}' that was altered or "
            "sealed for something else; nothing of this round may be opened."
        ) from error
