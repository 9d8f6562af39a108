"""The server's side of one secure sum: it takes messages in, closes phases, and holds no row that is not masked.

Each phase takes messages until it is closed by the call that answers it: `roster`, `boxes`, `survivors`,
`confirmations`, `total`. A message that is refused leaves everything as it was: one client's fault is not the others'.
"""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.secure_sum import masks, shamir
from fedloom.secure_sum.agreement import (
    Circle,
    Verify,
    add_pair_mask,
    add_self_mask,
    check_advert,
    hash_of_seed,
)
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
from fedloom.secure_sum.party import PHASES, following
from fedloom.secure_sum.terms import SecureSumError, Terms

__all__ = ["Collector"]


class Collector:
    """The server in one sum: memory for two rows, the running sum and the one that comes in."""

    def __init__(self, terms: Terms, verify: Verify) -> None:
        self.terms, self._verify = terms, verify
        self._phase = PHASES[0]
        self._asked: Collection[str] = terms.clients
        """Who has a part in the phase."""
        self._adverts: dict[str, Advert] = {}
        self._shares: dict[str, Shares] = {}
        self._sum_S = np.zeros(terms.size, dtype=np.uint32)
        self._rows: set[str] = set()
        self._signatures: dict[str, bytes] = {}
        self._opened: dict[str, Opened] = {}

    # ------------------------------------------------------------------------------------------------------ phase 1

    def take_advert(self, advert: Advert) -> None:
        """Take in a party's keys; refused are ones that its identity did not sign, and second ones."""
        self._check(advert.sender, "advertise", self._adverts)
        check_advert(advert, self.terms, self._verify)
        self._adverts[advert.sender] = advert

    def roster(self) -> Roster:
        """Close advertising and return what is sent to all who advertised; too few are refused."""
        with self._closing("advertise"):
            roster = Roster(tuple(self._adverts[name] for name in sorted(self._adverts)))
            self._circle = Circle(self.terms, roster, lambda *_: True)  # each was looked at when it came
            self._asked = roster.names
            return roster

    # ------------------------------------------------------------------------------------------------------ phase 2

    def take_shares(self, shares: Shares) -> None:
        """Take in a party's sealed shares, one for each of its neighbours."""
        self._check(shares.sender, "share", self._shares)
        if set(shares.sealed) != set(self._circle.neighbours[shares.sender]):
            raise self._refusal(shares.sender, "letters to others than its neighbours", "one to each")
        self._shares[shares.sender] = shares

    def boxes(self) -> dict[str, Box]:
        """Close sharing and return the letters to each party that shared, from its neighbours that did."""
        with self._closing("share"):
            boxes: dict[str, Box] = {}
            for name in sorted(self._shares):
                senders = [peer for peer in self._circle.neighbours[name] if peer in self._shares]
                boxes[name] = Box(name, {peer: self._shares[peer].sealed[name] for peer in senders})
            self._asked = self._shared = set(self._shares)
            self._shares = {}
            return boxes

    # ------------------------------------------------------------------------------------------------------ phase 3

    def take_row(self, masked: MaskedRow) -> None:
        """Add a masked row to the running sum."""
        self._check(masked.sender, "mask", self._rows)
        if masked.row_S.dtype != np.uint32 or masked.row_S.shape != self._sum_S.shape:
            raise self._refusal(masked.sender, f"a row of shape {masked.row_S.shape}", f"uint32 [{self.terms.size}]")
        self._sum_S += masked.row_S
        self._rows.add(masked.sender)

    def survivors(self) -> Survivors:
        """Close masking and return whose rows are in the sum; fewer than `min_clients` are refused."""
        with self._closing("mask"):
            if len(self._rows) < self.terms.min_clients:
                raise self._too_few(f"rows of {len(self._rows)} clients", self.terms.min_clients)
            self._asked = self._rows
            self._list = Survivors(tuple(sorted(self._rows)))
            return self._list

    # ------------------------------------------------------------------------------------------------------ phase 4

    def take_confirmation(self, confirmation: Confirmation) -> None:
        """Take in a signature under the list of survivors."""
        self._check(confirmation.sender, "confirm", self._signatures)
        if not self._verify(
            confirmation.sender, self._list.body(self.terms, self._circle.digest), confirmation.signature
        ):
            raise self._refusal(confirmation.sender, "a signature under something else", "one under the survivors")
        self._signatures[confirmation.sender] = confirmation.signature

    def confirmations(self) -> dict[str, Confirmations]:
        """Close confirming and return to each party that confirmed the signatures of its neighbours."""
        with self._closing("confirm"):
            self._asked, told = self._signatures, dict[str, Confirmations]()
            for name in sorted(self._signatures):
                peers = [peer for peer in self._circle.neighbours[name] if peer in self._signatures]
                told[name] = Confirmations({peer: self._signatures[peer] for peer in peers})
            return told

    # ------------------------------------------------------------------------------------------------------ phase 5

    def take_opened(self, opened: Opened) -> None:
        """Take in one share of each of the sender's neighbours and of itself: seeds of survivors, keys of the lost."""
        self._check(opened.sender, "unmask", self._opened)
        about = self._shared.intersection(self._circle.holders(opened.sender))
        if set(opened.seeds) != about & self._rows or set(opened.keys) != about - self._rows:
            raise self._refusal(opened.sender, "other shares", "seeds of survivors and keys of the lost")
        self._opened[opened.sender] = opened

    def total(self) -> NDArray[np.uint32]:
        """Close the sum and return it [S], modulo 2^32, over `survivors`; too few or altered shares are refused.

        The shares that were opened are forgotten.
        """
        with self._closing("unmask"):
            # Everything is put together before the first mask is taken off: a refused sum stays masked.
            seeds = {name: self._joined(name, "seeds") for name in sorted(self._rows)}
            keys = {name: masks.key_of(self._joined(name, "keys")) for name in sorted(self._shared - self._rows)}
            self._opened = {}
            self._check_secrets(seeds, keys)
            for seed in seeds.values():
                add_self_mask(self._sum_S, seed, self.terms, sign=-1)
            for lost, key in keys.items():
                # What the lost one would have added is the negative of what its neighbours did add.
                for peer in self._rows.intersection(self._circle.neighbours[lost]):
                    add_pair_mask(self._sum_S, key, self._circle, owner=lost, peer=peer)
            return self._sum_S

    def _joined(self, name: str, kind: str) -> bytes:
        holders = [one for one in self._circle.holders(name) if one in self._opened]
        if len(holders) < self.terms.threshold:
            raise self._too_few(f"{len(holders)} shares of '{name}'", self.terms.threshold)
        told: Mapping[str, Opened] = {holder: self._opened[holder] for holder in holders}
        shares = {
            self._circle.place[holder]: (one.seeds if kind == "seeds" else one.keys)[name]
            for holder, one in told.items()
        }
        try:
            return shamir.join(shares, threshold=self.terms.threshold)
        except DataError as error:
            raise self._refusal(name, f"altered shares ({error})", "those that it sealed") from error

    def _check_secrets(self, seeds: Mapping[str, bytes], keys: Mapping[str, Any]) -> None:
        """Refuse secrets that are not the ones advertised: a share was altered, and the sum would be noise."""
        for name, seed in seeds.items():
            if hash_of_seed(seed) != self._circle.adverts[name].seed_hash:
                raise self._refusal(name, "altered shares of its seed", "those that it sealed")
        for name, key in keys.items():
            if masks.public_key(key) != self._circle.adverts[name].mask_key:
                raise self._refusal(name, "altered shares of its key", "those that it sealed")

    # ------------------------------------------------------------------------------------------------------- common

    def _check(self, sender: str, phase: str, came: Collection[str]) -> None:
        """Refuse a message out of turn, of somebody who has no part in this phase, and a second one."""
        if phase != self._phase:
            raise self._refusal(sender, f"a message of phase {phase}", f"ones of phase {self._phase or 'none'}")
        if sender not in self._asked:
            raise self._refusal(sender, "a message of somebody without a part in it", "ones of those asked")
        if sender in came:
            raise self._refusal(sender, "a second message", "one of each")

    @contextmanager
    def _closing(self, phase: str) -> Generator[None]:
        """Let a phase end once and in turn; if its end is refused, the sum is over."""
        if phase != self._phase:
            raise SecureSumError(
                f"secure sum, round {self.terms.round}: found the end of {phase}, allowed is that of "
                f"{self._phase or 'nothing'}; begin a new sum."
            )
        self._phase = ""
        yield
        self._phase = following(phase)

    def _refusal(self, sender: str, found: str, allowed: str) -> SecureSumError:
        return SecureSumError(
            f"secure sum, round {self.terms.round}, client '{sender}': found {found}, allowed are {allowed}; it is not "
            "taken in."
        )

    def _too_few(self, found: str, least: int) -> SecureSumError:
        return SecureSumError(
            f"secure sum, round {self.terms.round}: found {found}, allowed are at least {least}; there is no sum, "
            "repeat the round with new keys."
        )
