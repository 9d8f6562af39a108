"""Clients' examples through the run's preparations, each client alone; what is made is kept, and made once.

    prepared/0_NAME/CLIENT.json     what the first preparation made of a client's examples
    prepared/0_NAME/CLIENT/         what it keeps while it is at work
    prepared/0_NAME/(server).json   what it made once for all

A preparation may ask a model or a person: gone on with, a run takes what was made and makes the rest. In a deployment
each file lies at its client.
"""

import hashlib
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from fedloom.base import config
from fedloom.base.errors import DataError, FedloomError, RunError
from fedloom.base.files import disk_errors, file_name, json_sha256, write_atomic
from fedloom.contracts.examples import Chat, Example
from fedloom.contracts.generation import is_generated
from fedloom.contracts.labelled import Picture, Row
from fedloom.contracts.stages import Made, Owner, Preparation
from fedloom.runs.tuning import TuningRun, pinned

__all__ = ["Preparing", "examples_made"]

_SERVER = "(server)"
_SIDES = 3


@dataclass(frozen=True)
class Preparing:
    """The preparations of a run."""

    run: TuningRun
    folder: Path | None
    """The run directory; None where nothing is kept."""

    def prepared(
        self, train: Mapping[str, Sequence[Example]], public: Sequence[Example] = ()
    ) -> tuple[dict[str, tuple[Example, ...]], list[dict[str, Any]], dict[str, float]]:
        """Return each client's examples after all preparations, what was told of each, and each client's quality.

        What was told is the `client`, the name of the `stage` and its place `at`, `counts`, and bytes `sent`, for each
        client and preparation, and for the server, by the name "", of what is made once for all. A client that is left
        without examples takes no part: it is not among those returned. Raises DataError if all are.
        """
        examples = {client: tuple(owned) for client, owned in train.items()}
        told: list[dict[str, Any]] = []
        quality = dict.fromkeys(train, 1.0)
        for at, preparation in enumerate(self.run.prepare):
            settings = [pinned(preparation), preparation.identity()]  # once: it may hash a model's files
            settings += [_sha256(public)] if public else []
            work = _Work(preparation, f"{at}_{preparation.name}", settings, public)
            head = {"at": at, "stage": preparation.name}
            common = self._for_all(work)
            told += [{"client": "", **head, **_told(common)}] if common else []
            for client, owned in examples.items():
                made = self._made(work, owned, client, common.examples if common else ())
                examples[client] = tuple(made.examples)
                quality[client] *= made.quality
                told.append({"client": client, **head, **_told(made)})
            examples = {client: owned for client, owned in examples.items() if owned}
            if not examples:
                raise DataError(
                    f"prepare: '{preparation.name}' made no example for any client; change its settings, or the data."
                )
        return examples, told, quality

    def _for_all(self, work: "_Work") -> Made | None:
        """Return what a preparation makes once for all clients, or has made before."""
        place = self._place(work, "", _SERVER, ())
        if place and place.file.is_file():
            return place.read()
        made = work.step.for_all(self._owner(work, "", place))
        return place.kept(made) if place and made else made

    def _made(self, work: "_Work", examples: Sequence[Example], client: str, common: Sequence[Example]) -> Made:
        """Return what a preparation makes of a client's examples, or what it has made of the very same before."""
        place = self._place(work, client, file_name(client), (*examples, *common))
        if place and place.file.is_file():
            return place.read()
        if place:
            with disk_errors(place.home):
                place.home.mkdir(parents=True, exist_ok=True)
        made = work.step(examples, replace(self._owner(work, client, place), common=common))
        return place.kept(made) if place else made

    def _owner(self, work: "_Work", client: str, place: "_Place | None") -> Owner:
        return Owner(client, self.run.seed, place.home if place else None, work.public)

    def _place(self, work: "_Work", client: str, name: str, examples: Sequence[Example]) -> "_Place | None":
        if self.folder is None:
            return None
        home = self.folder / "prepared" / work.stage
        of = json_sha256([work.settings, self.run.seed, client, _sha256(examples)])
        kinds = (*self.run.task.learns, *map(type, (*examples, *work.public)))
        return _Place(home / name, home / f"{name}.json", of, kinds)


@dataclass(frozen=True)
class _Place:
    """Where what is made lies, and what it is made of."""

    home: Path
    file: Path
    of: str
    kinds: Sequence[type[Any]]

    def read(self) -> Made:
        """Return what was made; refused where it was made of something else."""
        of, made = _read(self.file, self.kinds)
        if of != self.of:
            raise RunError(f"{self.file}: was made of other examples or settings; restore them or start a new run.")
        return made

    def kept(self, made: Made) -> Made:
        """Return what was made once it is written down."""
        records = [{"kind": type(one).__name__, "example": _record(one)} for one in made.examples]
        table = {"of": self.of, **_told(made), "quality": made.quality, "examples": records}
        write_atomic(self.file, json.dumps(table | {"sha256": json_sha256(table)}))
        return replace(made, examples=tuple(made.examples))


@dataclass(frozen=True)
class _Work:
    """A preparation at its place in the run, with all that what it makes depends on besides examples."""

    step: Preparation
    stage: str
    settings: Sequence[Any]
    public: Sequence[Example]


def examples_made(folder: Path, stage: str) -> list[Example]:
    """Return the generated examples that a run directory keeps of the last preparation of a name, client by client."""
    homes = sorted((folder / "prepared").glob(f"*_{stage}"), key=lambda home: int(home.name.split("_")[0]))
    found: list[Example] = []
    for file in sorted(homes[-1].glob("*.json")) if homes else ():
        _, made = _read(file, (Picture, Row, Chat))
        found += filter(is_generated, made.examples)
    return found


def _told(made: Made) -> dict[str, Any]:
    found = {"counts": dict(made.counts), "sent": dict(made.sent)}
    return found | ({"received": dict(made.received)} if made.received else {})


def _record(example: Example) -> dict[str, Any]:
    """Return an example as JSON values, bytes as text."""
    values = asdict(cast(Any, example))
    return {key: b64encode(one).decode() if isinstance(one, bytes) else one for key, one in values.items()}


def _example(kind: type[Any], record: Mapping[str, Any]) -> Example:
    # A tuple of so many parts each of its own is no schema of a run file: a picture's shape is one.
    if kind is not Picture:
        return config.build(kind, record)
    shape = tuple(int(side) for side in record["shape"])
    pixels = b64decode(record["pixels"], validate=True)
    if len(shape) != _SIDES or len(pixels) != math.prod(shape):
        raise ValueError("a picture of another size")
    return Picture(pixels, shape, str(record["label"]), record["tags"])


def _sha256(examples: Sequence[Example]) -> str:
    return hashlib.sha256(repr(tuple(examples)).encode()).hexdigest()


def _read(file: Path, kinds: Sequence[type[Any]]) -> tuple[str, Made]:
    """Return what was made and what of, from its file; one that is damaged is refused."""
    known = {kind.__name__: kind for kind in kinds}
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        digest = table.pop("sha256")
        if digest != json_sha256(table):
            raise ValueError("its content differs from what was written")
        found = tuple(_example(known[one["kind"]], one["example"]) for one in table["examples"])
        # Files of before have no quality.
        made = Made(found, table["counts"], table["sent"], table.get("received", {}), table.get("quality", 1.0))
        return table["of"], made
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FedloomError) as error:
        raise RunError(f"{file}: cannot be read ({error}); delete it to have it made again.") from error
