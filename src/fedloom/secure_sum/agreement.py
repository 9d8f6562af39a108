"""What party and collector work out alike: the graph over the roster, purposes of keys, who adds and who subtracts."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.secure_sum import graph, masks
from fedloom.secure_sum.messages import Advert, Roster
from fedloom.secure_sum.terms import SecureSumError, Terms, packed

__all__ = ["Circle", "Verify", "add_pair_mask", "add_self_mask", "check_advert", "hash_of_seed"]

Verify = Callable[[str, bytes, bytes], bool]
"""Whether a signature is one of that name's identity under those bytes: (name, message, signature)."""


class Circle:
    """A roster whose signatures have been looked at, and the graph over it."""

    def __init__(self, terms: Terms, roster: Roster, verify: Verify) -> None:
        """Refuse a roster of strangers or of too few, or with keys that their owner did not sign: SecureSumError."""
        self.adverts: Mapping[str, Advert] = {advert.sender: advert for advert in roster.adverts}
        self.terms, self.roster, self.digest = terms, roster, roster.digest(terms)
        names = list(roster.names)
        if names != sorted(set(names)) or not set(names) <= set(terms.clients):
            raise SecureSumError(
                f"secure sum, round {terms.round}: found a roster with names twice, out of order or not of it, allowed "
                "are its clients; leave it."
            )
        least = max(terms.min_clients, terms.threshold)
        if len(roster.names) < least:
            raise SecureSumError(
                f"secure sum, round {terms.round}: found {len(roster.names)} clients, allowed are at least {least}; "
                "wait for more, or agree on other terms."
            )
        for advert in roster.adverts:
            check_advert(advert, terms, verify)
        self.neighbours = graph.neighbours(roster.names, terms.degree, terms.run, terms.round)
        self.place = {name: place for place, name in enumerate(roster.names, start=1)}

    def holders(self, name: str) -> tuple[str, ...]:
        """Return who holds shares of that party's secrets: its neighbours and itself."""
        return tuple(sorted((name, *self.neighbours[name])))


def check_advert(advert: Advert, terms: Terms, verify: Verify) -> None:
    """Refuse an advert that its sender's identity did not sign."""
    if not verify(advert.sender, advert.body(terms), advert.signature):
        raise SecureSumError(
            f"secure sum, round {terms.round}: found keys of '{advert.sender}' that its identity did not sign for "
            "these terms, allowed are its own; ask it anew."
        )


def hash_of_seed(seed: bytes) -> bytes:
    """Return what a party advertises of the seed of its own mask."""
    return hashlib.sha256(packed(b"fedloom secure sum seed", seed)).digest()


def add_self_mask(row_S: NDArray[np.uint32], seed: bytes, terms: Terms, *, sign: int) -> None:
    """Add a party's own mask to a row, or take it off."""
    key = masks.derived(seed, purpose=packed(b"fedloom secure sum own mask", terms.digest))
    masks.add_mask(row_S, key, sign=sign)


def add_pair_mask(
    row_S: NDArray[np.uint32], private: Any, circle: Circle, *, owner: str, peer: str, sign: int = 1
) -> None:
    """Add to a row what `owner` adds of its mask with `peer`, or take it off; `private` is the owner's key.

    Of the two the first by name adds the mask and the other subtracts it.
    """
    first, second = sorted((owner, peer))
    purpose = packed(b"fedloom secure sum pair mask", circle.terms.digest, first.encode(), second.encode())
    key = masks.agreed(private, circle.adverts[peer].mask_key, purpose=purpose)
    masks.add_mask(row_S, key, sign=sign if owner == first else -sign)
