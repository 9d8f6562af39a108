"""A client's side of one secure sum: five calls, each once and in turn.

Bonawitz et al. 2017, Practical Secure Aggregation for Privacy-Preserving Machine Learning,
https://doi.org/10.1145/3133956.3133982, figure 4, rounds 0 to 4 with the active adversary's signatures, over the
graph of Bell et al. 2020 (`graph`): with the keys of its neighbours a party masks

    y_u = x_u + PRG(b_u) + sum over v > u of PRG(s_uv) - sum over v < u of PRG(s_uv)   modulo 2^32.

Deviations: the roster carries everybody's signed keys, not the neighbours' alone; the seed b_u is committed to by a
hash; a survivor's own share of its seed counts; letters have keys of their own way, not the pair's.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.secure_sum import masks, sealing, shamir
from fedloom.secure_sum.agreement import Circle, Verify, add_pair_mask, add_self_mask, hash_of_seed
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
from fedloom.secure_sum.terms import SecureSumError, Terms

__all__ = ["PHASES", "Party", "following"]

PHASES = ("advertise", "share", "mask", "confirm", "unmask")


def following(phase: str) -> str:
    """Return the phase after one, "" after the last."""
    return (*PHASES, "")[PHASES.index(phase) + 1]


class Party:
    """One client in one sum. After the last phase, and after any refusal, it does nothing more and knows no secret.

    `sign` signs bytes with the client's identity, `verify` tells whether a signature is a name's. `random` gives secret
    random bytes: the system's, but in tests.
    """

    def __init__(
        self,
        terms: Terms,
        name: str,
        *,
        sign: Callable[[bytes], bytes],
        verify: Verify,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if name not in terms.clients:
            raise DataError(
                f"secure sum, round {terms.round}: found client '{name}', which is not of it; leave it out."
            )
        self.terms, self.name = terms, name
        self._sign, self._verify, self._random = sign, verify, random
        self._next = PHASES[0]
        self._seed, self._mask_secret = random(masks.KEY_BYTES), random(masks.KEY_BYTES)
        self._mask_key, self._seal_key = masks.key_of(self._mask_secret), masks.key_of(random(masks.KEY_BYTES))
        self._letters: dict[str, bytes] = {}
        """Shares of each neighbour whose letter came, and of this party itself: 33 bytes of the seed, 33 of the key."""

    def advertise(self) -> Advert:
        """Return the public keys of this round, signed."""
        with self._phase("advertise"):
            keys = masks.public_key(self._mask_key), masks.public_key(self._seal_key)
            advert = Advert(self.name, *keys, hash_of_seed(self._seed), b"")
            signature = self._sign(advert.body(self.terms))
            self._advert = Advert(self.name, *keys, advert.seed_hash, signature)
            return self._advert

    def share(self, roster: Roster) -> Shares:
        """Return the sealed shares for the neighbours; a roster with forged, few or other keys of mine is refused."""
        with self._phase("share"):
            self._circle = circle = Circle(self.terms, roster, self._verify)
            if circle.adverts.get(self.name) != self._advert:
                raise self._refusal("a roster without my keys", "the one that I advertised to")
            holders = circle.holders(self.name)
            both = zip(self._split(self._seed, holders), self._split(self._mask_secret, holders), strict=True)
            letters = {holder: seed + key for holder, (seed, key) in zip(holders, both, strict=True)}
            self._letters = {self.name: letters.pop(self.name)}
            return Shares(self.name, {peer: self._sealed(letter, peer) for peer, letter in letters.items()})

    def _split(self, secret: bytes, holders: tuple[str, ...]) -> list[bytes]:
        places = [self._circle.place[holder] for holder in holders]
        return list(shamir.split(secret, threshold=self.terms.threshold, places=places, random=self._random).values())

    def _sealed(self, letter: bytes, peer: str) -> bytes:
        public = self._circle.adverts[peer].seal_key
        return sealing.sealed(letter, self._seal_key, public, self.terms, sender=self.name, receiver=peer)

    def mask(self, box: Box, row_S: NDArray[np.uint32]) -> MaskedRow:
        """Return the row [S] under its masks; the row itself is left as it is.

        Refused are letters that are altered or not from neighbours, and fewer than the threshold.
        """
        with self._phase("mask"):
            if row_S.dtype != np.uint32 or row_S.shape != (self.terms.size,):
                raise DataError(
                    f"secure sum, round {self.terms.round}: found a row {row_S.dtype} {row_S.shape}, allowed is uint32 "
                    f"[{self.terms.size}]; encode it as the terms say."
                )
            self._read(box)
            masked_S = row_S.copy()
            add_self_mask(masked_S, self._seed, self.terms, sign=1)
            for peer in box.sealed:
                add_pair_mask(masked_S, self._mask_key, self._circle, owner=self.name, peer=peer)
            return MaskedRow(self.name, masked_S)

    def _read(self, box: Box) -> None:
        if box.receiver != self.name or not set(box.sealed) <= set(self._circle.neighbours[self.name]):
            raise self._refusal("letters to or from somebody else", "those of my neighbours to me")
        if len(box.sealed) + 1 < self.terms.threshold:
            raise self._refusal(f"letters of {len(box.sealed)} neighbours", f"at least {self.terms.threshold - 1}")
        for peer, packet in box.sealed.items():
            public = self._circle.adverts[peer].seal_key
            self._letters[peer] = sealing.unsealed(
                packet, self._seal_key, public, self.terms, sender=peer, receiver=self.name
            )

    def confirm(self, survivors: Survivors) -> Confirmation:
        """Return the signature under the list of survivors: of this round there will be no other.

        Refused are lists that lack this party, have fewer than `min_clients`, or name a neighbour who sent no letter:
        its mask would not be in my row.
        """
        with self._phase("confirm"):
            names = set(survivors.names)
            if self.name not in names or not names <= set(self._circle.roster.names):
                raise self._refusal("survivors without me or not of the roster", "some of the roster and me")
            if len(names) < self.terms.min_clients:
                raise self._refusal(f"a sum over {len(names)} clients", f"at least {self.terms.min_clients}")
            if not names.intersection(self._circle.neighbours[self.name]) <= set(self._letters):
                raise self._refusal("a surviving neighbour without a letter", "those that I share a mask with")
            self._survivors = names
            self._signed = survivors.body(self.terms, self._circle.digest)
            return Confirmation(self.name, self._sign(self._signed))

    def unmask(self, confirmations: Confirmations) -> Opened:
        """Return one share of each neighbour: of the seed of a survivor, of the mask key of a lost one.

        Only after the threshold of signatures, mine among them, stand under the very list that I signed; any other is
        refused, for somebody was shown another list.
        """
        with self._phase("unmask"):
            self._check(confirmations)
            size = shamir.SHARE_BYTES
            seeds = {peer: both[:size] for peer, both in self._letters.items() if peer in self._survivors}
            keys = {peer: both[size:] for peer, both in self._letters.items() if peer not in self._survivors}
            self._forget()
            return Opened(self.name, seeds, keys)

    def _check(self, confirmations: Confirmations) -> None:
        peers = {*self._circle.neighbours[self.name], self.name} & self._survivors
        if not set(confirmations.signatures) <= peers:
            raise self._refusal("signatures of others", "those of my surviving neighbours")
        for peer, signature in confirmations.signatures.items():
            if not self._verify(peer, self._signed, signature):
                raise self._refusal(f"a signature of '{peer}' under another list of survivors", "equal lists")
        equal = len({*confirmations.signatures, self.name})
        if equal < self.terms.threshold:
            raise self._refusal(f"{equal} equal lists of survivors", f"at least {self.terms.threshold}")

    def _refusal(self, found: str, allowed: str) -> SecureSumError:
        return SecureSumError(
            f"secure sum, round {self.terms.round}, client '{self.name}': found {found}, allowed are {allowed}; this "
            "client leaves the sum."
        )

    @contextmanager
    def _phase(self, phase: str) -> Generator[None]:
        """Let a phase happen once and in turn; if it is refused, none follows."""
        expected, self._next = self._next, ""
        try:
            if phase != expected:
                raise self._refusal(f"a call of {phase}", f"a call of {expected}" if expected else "no more calls")
            yield
            self._next = following(phase)
        finally:
            if not self._next:
                self._forget()

    def _forget(self) -> None:
        self._seed = self._mask_secret = b""
        self._mask_key = self._seal_key = None
        self._letters = {}
