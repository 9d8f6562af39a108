"""What a run's start has already spent of its clients' privacy: the lineage of the weights, seen from each client.

A training counts against a client with the uses of the owner whose data have the same hash. Of other owners it is not
known whether they hold some of the same records, so the training counts as if with the least noise, the highest rate
and the most uses of any owner. That can be left out only where the run file vouches for it (`start_data = "other"`).
"""

from dataclasses import dataclass

from fedloom.contracts import Earlier
from fedloom.lineage import NONE, UNKNOWN, Lineage, Owner, Training

__all__ = ["Origin", "origin_of"]


@dataclass(frozen=True)
class Origin:
    """What came before a run, for one client's data."""

    before: tuple[Earlier, ...] = ()
    broken: str = ""
    """Why no epsilon bounds what came before; "" where one does."""


def origin_of(lineage: Lineage, *, mechanism: str, data: str, elsewhere: bool) -> Origin:
    """Return what a lineage means for a client with the hash `data` in a run under `mechanism`.

    `elsewhere`: trainings on data of no such hash were on other records.
    """
    before: list[Earlier] = []
    for training in lineage:
        same = [owner for owner in training.owners if data and owner.data == data]
        if elsewhere and not same:
            continue
        if reason := _unbounded(training, mechanism):
            return Origin(broken=reason)
        before.append(_most(training.unit, same or training.owners))
    return Origin(tuple(before))


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
