"""A person's folder: what each step of a reconstruction made of a capture, so that a step is made once.

    person.json       which capture, which field, what each step took in seconds
    surface.npz       the surface with its colours, the visual hull beside it
    layers.npz        classes of the surface's vertices with margins; the layers that were cut from it
    body.npz          the body under them
    swap_NAME.npz     a garment of another, on this body
    meshes/           all of it as GLB, OBJ and PLY
    report.html       the page

Body shape is biometric: nothing of this folder leaves whoever made it.
"""

import hashlib
import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedloom.base.errors import DataError, MissingFileError, one_line
from fedloom.base.files import write_atomic
from fedloom.people.array_files import Arrays, read_arrays, write_arrays

__all__ = ["PersonFolder"]

_FILE = "person.json"


class PersonFolder:
    """What is known of one person so far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_there(self) -> bool:
        """Whether the folder has been begun."""
        return (self.path / _FILE).is_file()

    @property
    def record(self) -> dict[str, Any]:
        """What person.json says; MissingFileError, or DataError for a damaged one."""
        file = self.path / _FILE
        if not self.is_there:
            raise MissingFileError(
                f"{self.path}: no person's folder (it has no {_FILE}); make one: fedloom people reconstruct."
            )
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            return {"capture": str(record["capture"]), "field": str(record["field"]), "steps": dict(record["steps"])}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: damaged ({one_line(error)}); reconstruct the person anew.") from error

    def begin(self, capture: Path, field: str) -> None:
        """Make the folder; one of another capture or field is refused."""
        if self.is_there:
            self.refuse_other("capture", str(capture.resolve()), "choose another --out")
            self.refuse_other("field", field, "choose another --out")
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._write({"capture": str(capture.resolve()), "field": field, "steps": {}})

    def refuse_other(self, name: str, wanted: str, remedy: str) -> None:
        """Refuse a folder of another capture or field than the one that is asked for."""
        if self.record[name] != wanted:
            raise DataError(f"{self.path}: found {name} {self.record[name]}, allowed is {wanted}; {remedy}.")

    def _write(self, record: Mapping[str, Any]) -> None:
        write_atomic(self.path / _FILE, json.dumps(record, indent=1) + "\n")

    def made_of(self, step: str) -> str:
        """Return by what a step was made, as a hash; "" where it was not."""
        return str(self.record["steps"].get(step, {}).get("of", ""))

    def key(self, before: str, settings: Any) -> str:
        """Return what a step is made of: the step before it, and its settings."""
        return hashlib.sha256(f"{self.made_of(before) if before else ''}|{settings!r}".encode()).hexdigest()[:16]

    def arrays(self, step: str) -> Arrays:
        """Return what a step left; DataError where it has not been made."""
        if not self.made_of(step):
            raise DataError(
                f"{self.path}: the step '{step}' has not been made; make it first: "
                f"fedloom people {_COMMANDS.get(step, 'swap')}."
            )
        return read_arrays(self.path / f"{step}.npz")

    def file(self, step: str) -> Path:
        """Return the file of a step."""
        return self.path / f"{step}.npz"

    @contextmanager
    def making(self, step: str, key: str) -> Generator[Arrays]:
        """Give what takes a step's arrays; they are written, with how long it took, when the block ends well.

        The steps after it are then to be made again.
        """
        arrays, start = Arrays(), time.perf_counter()
        yield arrays
        record = self.record
        # What was made of an older one no longer fits, and a stop while this is written must leave none of it known.
        known, place = record["steps"], _place(step)
        record["steps"] = {name: told for name, told in known.items() if _place(name) <= place and name != step}
        self._write(record)
        write_arrays(self.file(step), arrays)
        record["steps"][step] = {"of": key, "wall_s": round(time.perf_counter() - start, 3)}
        self._write(record)


def _place(step: str) -> int:
    return list(_COMMANDS).index(step) if step in _COMMANDS else len(_COMMANDS)


_COMMANDS = {"surface": "reconstruct", "layers": "separate", "body": "fit"}
