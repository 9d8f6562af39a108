"""Clients' examples through the run's preparations, each client alone; what is made is kept, and made once.

    prepared/0_NAME/CLIENT.json     what the first preparation made of a client's examples
    prepared/0_NAME/CLIENT/         what it keeps while it is at work

A preparation may ask a model or a person: gone on with, a run takes what was made and makes the rest. In a deployment
each file lies at its client.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from fedloom.base import config
from fedloom.base.errors import DataError, FedloomError, RunError
from fedloom.base.files import disk_errors, file_name, json_sha256, write_atomic
from fedloom.contracts.examples import Example
from fedloom.contracts.stages import Made, Owner, Preparation
from fedloom.runs.tuning import TuningRun, pinned

__all__ = ["Preparing"]


@dataclass(frozen=True)
class Preparing:
    """The preparations of a run."""

    run: TuningRun
    folder: Path | None
    """The run directory; None where nothing is kept."""

    def prepared(
        self, train: Mapping[str, Sequence[Example]]
    ) -> tuple[dict[str, tuple[Example, ...]], list[dict[str, Any]], dict[str, float]]:
        """Return each client's examples after all preparations, what was told of each, and each client's quality.

        What was told is the `client`, the name of the `stage` and its place `at`, `counts`, and bytes `sent`, for each
        client and preparation. A client that is left without examples takes no part: it is not among those returned.
        Raises DataError if all are.
        """
        examples = {client: tuple(owned) for client, owned in train.items()}
        told: list[dict[str, Any]] = []
        quality = dict.fromkeys(train, 1.0)
        for at, preparation in enumerate(self.run.prepare):
            settings = [pinned(preparation), preparation.identity()]  # once: it may hash a model's files
            for client, owned in examples.items():
                made = self._made(preparation, f"{at}_{preparation.name}", settings, owned, client)
                examples[client] = tuple(made.examples)
                quality[client] *= made.quality
                stage = {"client": client, "at": at, "stage": preparation.name}
                told.append(stage | {"counts": dict(made.counts), "sent": dict(made.sent)})
            examples = {client: owned for client, owned in examples.items() if owned}
            if not examples:
                raise DataError(
                    f"prepare: '{preparation.name}' made no example for any client; change its settings, or the data."
                )
        return examples, told, quality

    def _made(
        self, preparation: Preparation, stage: str, settings: Sequence[Any], examples: Sequence[Example], client: str
    ) -> Made:
        """Return what a preparation makes of a client's examples, or what it has made of the very same before."""
        if self.folder is None:
            return preparation(examples, Owner(client, self.run.seed, None))
        home = self.folder / "prepared" / stage
        file, own = home / f"{file_name(client)}.json", home / file_name(client)
        of = json_sha256([settings, self.run.seed, client, _sha256(examples)])
        if file.is_file():
            return _read(file, of, (*self.run.task.learns, *map(type, examples)))
        with disk_errors(own):
            own.mkdir(parents=True, exist_ok=True)
        made = preparation(examples, Owner(client, self.run.seed, own))
        records = [{"kind": type(one).__name__, "example": asdict(cast(Any, one))} for one in made.examples]
        told = {"counts": dict(made.counts), "sent": dict(made.sent), "quality": made.quality}
        table = {"of": of, **told, "examples": records}
        write_atomic(file, json.dumps(table | {"sha256": json_sha256(table)}))
        return replace(made, examples=tuple(made.examples))


def _sha256(examples: Sequence[Example]) -> str:
    return hashlib.sha256(repr(tuple(examples)).encode()).hexdigest()


def _read(file: Path, of: str, kinds: Sequence[type[Any]]) -> Made:
    """Return what was made, from its file; one that is damaged, or made of other examples, is refused."""
    known = {kind.__name__: kind for kind in kinds}
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        digest = table.pop("sha256")
        if digest != json_sha256(table):
            raise ValueError("its content differs from what was written")
        found = tuple(config.build(known[one["kind"]], one["example"]) for one in table["examples"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FedloomError) as error:
        raise RunError(f"{file}: cannot be read ({error}); delete it to have it made again.") from error
    if table["of"] != of:
        raise RunError(f"{file}: was made of other examples or settings; restore them or start a new run.")
    return Made(found, table["counts"], table["sent"], table.get("quality", 1.0))  # files of before have none
