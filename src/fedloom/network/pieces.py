"""Large things that travel in pieces: named by their SHA-256, gone on with from the last byte that arrived.

What has arrived lies on disk; nothing is reserved for what a header promises.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedloom.base.errors import DataError
from fedloom.base.files import disk_errors
from fedloom.network.frames import CHUNK

__all__ = ["Inbox", "Piece", "pieces", "read_pieces", "sha256"]


@dataclass(frozen=True)
class Piece:
    """What a header says of a thing that travels: its bytes are known before they come."""

    digest: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> "Piece":
        """Return what a header says of these bytes."""
        return cls(sha256(data), len(data))


def sha256(data: bytes | bytearray) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes, start: int = 0) -> Iterator[bytes]:
    """Yield bytes from a place on, as much at a time as a frame holds."""
    for at in range(start, len(data), CHUNK):
        yield data[at : at + CHUNK]


def read_pieces(file: BinaryIO, start: int = 0) -> Iterator[bytes]:
    """Yield an open file from a place on in the same way, and close it."""
    with file:
        file.seek(start)
        while data := file.read(CHUNK):
            yield data


@dataclass(frozen=True)
class Inbox:
    """What arrives in a folder, under the name that its sender knows it by."""

    folder: Path

    def _part(self, name: str) -> Path:
        return self.folder / f"{name}.part"

    def have(self, name: str) -> int:
        """Return how many bytes of it have arrived."""
        path = self._part(name)
        return path.stat().st_size if path.is_file() else 0

    def add(self, name: str, piece: Piece, start: int, data: bytes) -> int:
        """Append bytes that begin at `start`, and return how many there are; DataError where they do not fit."""
        have = self.have(name)
        if start != have or have + len(data) > piece.size:
            raise DataError(f"bytes {start} to {start + len(data)}: {have} of {piece.size} have arrived; go on there.")
        with disk_errors(self._part(name)):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._part(name).open("ab") as file:
                file.write(data)
        return have + len(data)

    def whole(self, name: str, piece: Piece) -> bytearray | None:
        """Return all of it once it has arrived; bytes of another hash are thrown away: DataError."""
        if self.have(name) < piece.size:
            return None
        data = bytearray(piece.size)
        if piece.size:
            with self._part(name).open("rb") as file:
                file.readinto(data)
        if self.have(name) > piece.size or sha256(data) != piece.digest:
            self.drop(name)
            raise DataError("the bytes that arrived are not those that were promised; they are asked for once more.")
        return data

    def drop(self, name: str) -> None:
        """Forget what has arrived."""
        self._part(name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_only(self, name: str) -> None:
        """Forget everything but one."""
        for path in self.folder.glob("*.part"):
            if path != self._part(name):
                os.unlink(path)
