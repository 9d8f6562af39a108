"""What a run's start has already spent of its clients' privacy: the lineage of the weights, seen from each client.

A training counts against a client with the uses of the owner whose data have the same hash. Of other owners it is not
known whether they hold some of the same records, so the training counts as if with the least noise, the highest rate
and the most uses of any owner. That can be left out only where the run file vouches for it (`start_data = "other"`).

A training that protected clients protects a client of this run only if that is no more than one of them: a hospital
may be what were a hundred patients. Equal hashes show it, or `start_data = "same_clients"` vouches for it.
"""

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from fedloom.contracts.federated import Earlier
from fedloom.contracts.lineage import NONE, UNKNOWN, Lineage, Owner, Training
from fedloom.contracts.privacy import UNITS

__all__ = ["Origin", "StartData", "origin_of"]


@dataclass(frozen=True)
class Origin:
    """What came before a run, for one client's data."""

    before: tuple[Earlier, ...] = ()
    broken: str = ""
    """Why no epsilon bounds what came before; "" where one does."""


StartData = Literal["same", "same_clients", "other"]


def origin_of(lineage: Lineage, *, mechanism: str, unit: str, data: Set[str], start_data: StartData = "same") -> Origin:
    """Return what a lineage means for clients whose data have the hashes `data` in a run of that mechanism and unit."""
    before: list[Earlier] = []
    for training in lineage:
        same = [owner for owner in training.owners if owner.data in data]
        if start_data == "other" and not same:
            continue
        all_same = start_data == "other" or (bool(same) and {owner.data for owner in same} == data)
        if reason := _unbounded(training, mechanism) or _merged(training, unit, all_same or start_data != "same"):
            return Origin(broken=reason)
        before.append(_most(training.unit, same if all_same else training.owners))
    return Origin(tuple(before))


def _merged(training: Training, unit: str, known: bool) -> str:
    """Return why what protected clients may not protect these; `known`: each of these is at most one of them."""
    if known or not (_whole(unit) and _whole(training.unit)):
        return ""
    return "its start protected clients of which several may be one client here (start_data can vouch for it)"


def _whole(unit: str) -> bool:
    return unit in UNITS and UNITS[unit].whole_client


def _unbounded(training: Training, mechanism: str) -> str:
    if training.mechanism == NONE:
        return "its start was trained without privacy"
    if training == UNKNOWN:
        return "nothing is known of how its start was trained"
    if training.mechanism != mechanism:
        return f"its start was trained under '{training.mechanism}', which '{mechanism}' does not account for"
    return ""


def _most(unit: str, owners: "tuple[Owner, ...] | list[Owner]") -> Earlier:
    """Return uses that let out at least what those of each owner do."""
    return Earlier(
        unit,
        max(owner.rate for owner in owners),
        min(owner.noise_multiplier for owner in owners),
        max(owner.uses for owner in owners),
    )
