"""The nearest-neighbour audit of a run's generated examples: for simulations, which hold all clients' data."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.contracts.examples import Example
from fedloom.contracts.generation import is_generated
from fedloom.evaluation.nearest import Group, Nearest, nearest
from fedloom.runs.directory import RunDirectory
from fedloom.runs.prepared import Prepared, prepare
from fedloom.runs.tuning import run_of
from fedloom.synthesis.worth import features

__all__ = ["copies"]


def copies(folder: Path, by: str = "label", seed: int = 0) -> Nearest:
    """Return whether a run's samples lie nearer to their client's examples than to held-out ones of the same class.

    Refused: a run without generated examples, and one without a common test to compare with.
    """
    directory = RunDirectory.open(folder)
    run = run_of(directory)
    ready = prepare(run, directory.path)
    groups = list(_groups(ready, by, seed))
    if not groups:
        raise DataError(
            f"{folder}: no client has generated examples of a class that it holds and the common test has; the audit "
            "needs prepare 'generated' and data with a test."
        )
    return nearest(groups, seed)


def _groups(ready: Prepared, by: str, seed: int) -> Iterator[Group]:
    division = ready.division
    for client, own in ready.owned.items():
        made = [one for one in division.train.get(client, ()) if is_generated(one)]
        for label in sorted({one.tags[by] for one in own if by in one.tags}):
            samples, private, held = (_of(label, by, part) for part in (made, own, division.test))
            n, random = min(len(private), len(held)), rng.python_random("copies", seed, client, label)
            if samples and n:
                sides = random.sample(private, n), random.sample(held, n)
                rows = features([*samples, *sides[0], *sides[1]]).split([len(samples), n, n])
                yield Group(*rows)


def _of(label: str, by: str, examples: Sequence[Example]) -> list[Example]:
    return [one for one in examples if one.tags.get(by) == label]
