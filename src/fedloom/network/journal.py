"""What a node remembers of a run, so that a job is answered once: memories, answers, uses, in this order on the disk.

    memory/<client>/<round>.safetensors   what a client keeps, after the round that it is named after
    answers/<client>/<round>.json         which job was answered, and the report's header; written last
    answers/<client>/<round>.bin          the packet
    asked/<client>/<phase>.json           which job was asked for in an evaluation
    uses.json                             uses of each client's data, written before a training begins

The same job again gets the stored report, without a step and without another use. Another job for a round that was
answered is refused: it would be a second look at the same data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fedloom.base.errors import DataError, RunError
from fedloom.base.files import disk_errors, file_name, json_sha256, write_atomic, write_bytes
from fedloom.base.tree import Slots
from fedloom.network.jobs import JobFrame
from fedloom.network.pieces import Piece

__all__ = ["Answer", "Journal"]


@dataclass(frozen=True)
class Answer:
    """What a node has answered: the header of a report and its packet."""

    header: Mapping[str, Any]
    packet: bytes


@dataclass(frozen=True)
class Journal:
    """A run's journal in a folder."""

    folder: Path

    def answered(self, job: JobFrame) -> Answer | None:
        """Return the stored answer to a job; another job for its round, or a damaged answer, is refused."""
        path = self._answer(job.client, job.round)
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            packet = path.with_suffix(".bin").read_bytes()
            header, known = record["header"], record["job"]
            fits = Piece.of(packet) == Piece(header["digest"], header["size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: is not what this node wrote ({error}); restore it from a copy.") from error
        if known != job.id:
            raise DataError(
                f"client '{job.client}', round {job.round}: another job was answered already; a round is answered once."
            )
        if not fits:
            raise RunError(f"{path.with_suffix('.bin')}: its bytes differ from what was saved; restore it from a copy.")
        return Answer(header, packet)

    def keep(self, job: JobFrame, answer: Answer, memory: Slots) -> None:
        """Write down an answer and what the client remembers, the entry last."""
        if memory:
            write_bytes(self._memory(job.client, job.round), _saved(memory))
        path = self._answer(job.client, job.round)
        write_bytes(path.with_suffix(".bin"), answer.packet)
        write_atomic(path, json.dumps({"job": job.id, "header": dict(answer.header)}))

    def memory(self, client: str, round: int) -> Slots:
        """Return what a client remembers of the newest round before this one."""
        folder = self.folder / "memory" / file_name(client)
        before = [path for path in folder.glob("*.safetensors") if path.stem.isdigit() and int(path.stem) < round]
        if not before:
            return {}
        path = max(before, key=lambda path: int(path.stem))
        try:
            named = load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path}: cannot be read ({error}); restore it from a copy.") from error
        slots: Slots = {}
        for key, tensor in named.items():
            slot, _, name = key.partition("/")
            slots.setdefault(slot, {})[name] = tensor
        return slots

    def anchor(self) -> Tensor | None:
        """Return the parameters [P] that the server sent last; None before the first round."""
        path = self.folder / "anchor.safetensors"
        try:
            return load_file(path)["params"] if path.is_file() else None
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{path}: cannot be read ({error}); restore it from a copy.") from error

    def keep_anchor(self, params_P: Tensor) -> None:
        """Write down the parameters that the server has sent."""
        write_bytes(self.folder / "anchor.safetensors", save({"params": params_P.contiguous()}))

    def summed_over(self, client: str, round: int) -> list[str] | None:
        """Return over whom a sum with a client's row was opened in a round; None where none was.

        Two sums that differ by one client tell that client's row: a second one is over the same clients or is not.
        """
        path = self.folder / "opened" / file_name(client) / f"{round:06d}.json"
        if not path.is_file():
            return None
        try:
            return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["survivors"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: is not what this node wrote ({error}); restore it from a copy.") from error

    def keep_opened(self, client: str, round: int, survivors: Sequence[str]) -> None:
        """Write down over whom a sum is about to be opened."""
        path = self.folder / "opened" / file_name(client) / f"{round:06d}.json"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"survivors": list(survivors)}))

    def ask_once(self, job: JobFrame) -> None:
        """Write down which job was asked for in an evaluation of a client; another one is refused: DataError."""
        path = self.folder / "asked" / file_name(job.client) / f"{job.phase}.json"
        if not path.is_file():
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"job": job.id}))
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))["job"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: is not what this node wrote ({error}); restore it from a copy.") from error
        if known != job.id:
            raise DataError(f"{job.phase}: other parameters were asked about already; an evaluation is answered once.")

    def last_round(self, client: str) -> int:
        """Return the last round that was answered for a client; -1 where there is none."""
        folder = self.folder / "answers" / file_name(client)
        return max((int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()), default=-1)

    def uses(self) -> dict[str, int]:
        """Return the uses of each client's data that trainings which were begun may have made."""
        path = self.folder / "uses.json"
        if not path.is_file():
            return {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["sha256"] != json_sha256(record["uses"]):
                raise ValueError("its hash does not fit")
            return {str(name): int(n) for name, n in record["uses"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: is not what this node wrote ({error}); restore it from a copy.") from error

    def count(self, client: str, uses: int) -> None:
        """Write down that so many more uses may be made of a client's data, before they are."""
        now = self.uses()
        now[client] = now.get(client, 0) + uses
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "uses.json", json.dumps({"uses": now, "sha256": json_sha256(now)}))

    def _answer(self, client: str, round: int) -> Path:
        return self.folder / "answers" / file_name(client) / f"{round:06d}.json"

    def _memory(self, client: str, round: int) -> Path:
        return self.folder / "memory" / file_name(client) / f"{round:06d}.safetensors"


def _saved(memory: Slots) -> bytes:
    return save({f"{slot}/{name}": t.contiguous() for slot, tree in memory.items() for name, t in tree.items()})
