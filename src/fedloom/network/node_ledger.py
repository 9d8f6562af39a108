"""A node's own ledger: what left it, what it refused, what it has spent; each line has the hash of the one before.

Who edits, removes or moves a line breaks the chain at that place. Cutting off the end leaves a chain that is whole but
shorter: the head's hash, which the node prints, tells that.
"""

import datetime as dt
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import RunError
from fedloom.base.files import disk_errors, json_sha256, sync

__all__ = ["NodeLedger"]

_FIRST = "0" * 64
_STRIDE = 1 << 14
_ONE_AT_A_TIME = threading.Lock()
"""A node writes from the thread that works and from the one that reads."""


@dataclass(frozen=True)
class NodeLedger:
    """The ledger in a file."""

    path: Path

    def append(self, kind: str, **told: Any) -> str:
        """Add a line, wait until the disk has it, and return its hash."""
        with _ONE_AT_A_TIME:
            record = {"time": _now(), "kind": kind, **told, "before": self._last()}
            record["sha256"] = json_sha256(record)
            with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                sync(file)
        return record["sha256"]

    def _last(self) -> str:
        """Return the hash in the last whole line; a line that a kill has torn is cut off."""
        if not self.path.is_file():
            return _FIRST
        with disk_errors(self.path), self.path.open("rb+") as file:
            end, tail = file.seek(0, os.SEEK_END), b""
            while tail.count(b"\n") < 2 and len(tail) < end:  # read from the end: a ledger grows for years
                file.seek(max(0, end - len(tail) - _STRIDE))
                tail = file.read(min(_STRIDE, end - len(tail))) + tail
            whole = tail[: tail.rfind(b"\n") + 1]
            file.truncate(end - len(tail) + len(whole))
        return str(_parsed(whole.splitlines()[-1].decode(errors="replace")).get("sha256")) if whole else _FIRST

    def records(self) -> list[dict[str, Any]]:
        """Return all lines; RunError, naming the first one at which the chain is broken."""
        before, found = _FIRST, list[dict[str, Any]]()
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        for number, line in enumerate(lines, 1):
            record = _parsed(line)
            told = {key: value for key, value in record.items() if key != "sha256"}
            if record.get("before") != before or record.get("sha256") != json_sha256(told):
                raise RunError(f"{self.path}: line {number} is not what this node wrote; the chain is broken there.")
            before = str(record["sha256"])
            found.append(record)
        return found


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}  # pyright: ignore[reportReturnType]


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
