"""A whole secure sum in one process: all phases, with clients lost wherever one says."""

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.secure_sum.collector import Collector
from fedloom.secure_sum.party import PHASES, Party
from fedloom.secure_sum.terms import Terms


@dataclass(frozen=True, eq=False)
class Simulated:
    """The sum [S] modulo 2^32, and whose rows are in it."""

    sum_S: NDArray[np.uint32]
    survivors: tuple[str, ...]


def simulate(
    rows: Mapping[str, NDArray[np.uint32]],
    terms: Terms,
    *,
    lost_at: Mapping[str, str] | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> Simulated:
    """Return the sum of the rows [S] of those that are lost after `mask`, or not at all.

    `lost_at` names the phase (`party.PHASES`) before whose message a client is lost. Identities are keys of a MAC that
    the process holds for all: within it nobody could be deceived. Raises what parties and collector raise.
    """
    lost = {name: PHASES.index(phase) for name, phase in (lost_at or {}).items()}
    if set(rows) != set(terms.clients):
        raise DataError(f"secure sum, round {terms.round}: found rows of {len(rows)} clients, allowed is one of each.")
    identity = random(32)

    def signed(name: str, message: bytes) -> bytes:
        return hmac.digest(identity, name.encode() + b"\0" + message, hashlib.sha256)

    def verify(name: str, message: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(signed(name, message), signature)

    def sign(name: str) -> Callable[[bytes], bytes]:
        return lambda message: signed(name, message)

    parties = {name: Party(terms, name, sign=sign(name), verify=verify, random=random) for name in terms.clients}
    collector = Collector(terms, verify)

    def left(phase: str) -> dict[str, Party]:
        return {name: one for name, one in parties.items() if lost.get(name, len(PHASES)) > PHASES.index(phase)}

    for party in left("advertise").values():
        collector.take_advert(party.advertise())
    roster = collector.roster()
    for party in left("share").values():
        collector.take_shares(party.share(roster))
    boxes = collector.boxes()
    for name, party in left("mask").items():
        collector.take_row(party.mask(boxes[name], rows[name]))
    survivors = collector.survivors()
    for party in left("confirm").values():
        collector.take_confirmation(party.confirm(survivors))
    confirmations = collector.confirmations()
    for name, party in left("unmask").items():
        collector.take_opened(party.unmask(confirmations[name]))
    return Simulated(collector.total(), survivors.names)
