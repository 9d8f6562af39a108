"""Writing that is whole or not at all: temporary names and renames, and clear lines where the disk refuses."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fedloom.base.errors import FedloomError, RunError

__all__ = [
    "atomic_folder",
    "disk_errors",
    "file_name",
    "file_sha256",
    "held",
    "json_sha256",
    "plain",
    "refuse_filled",
    "remove_folder",
    "removed_if_refused",
    "sync",
    "write_atomic",
    "write_bytes",
]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT)
_LONGEST = 120  # characters of a file name made from a client's; file systems take 255 bytes


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn the system's refusals to write into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(f"{path}: the disk is full; free some space, then `fedloom resume` goes on.") from error
        if error.errno in _CLOSED:
            raise RunError(f"{path}: cannot be written ({error.strerror}); choose another --out.") from error
        raise
    except SafetensorError as error:  # its own writer reports a full disk as text
        raise RunError(f"{path}: could not be written ({error}); check the disk.") from error


def refuse_filled(out: Path, advice: str = "choose another --out") -> None:
    """Raise RunError if something lies where a folder is to be made; an empty folder is nothing."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: exists and is not empty; {advice}.")


@contextlib.contextmanager
def held(lock: Path, refusal: str) -> Generator[None]:
    """Hold a lock file while the block runs; the system lets go when a process dies.

    Raises RunError with `refusal` where another process, or another block of this one, holds it.
    """
    file = FileLock(lock)
    try:
        with disk_errors(lock):
            file.acquire(timeout=0)
    except Timeout:
        raise RunError(refusal) from None
    try:
        yield
    finally:
        file.release()


def file_name(name: str) -> str:
    """Return a client's name as one safe file name: no separator, no leading dot, no limit on what it may hold.

    >>> file_name("north/a"), file_name("..")
    ('north%2Fa', '%2E%2E')
    """
    quoted = quote(name, safe="").replace(".", "%2E")
    if len(quoted) <= _LONGEST:
        return quoted
    return f"{quoted[: _LONGEST // 2]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Return dataclasses, mappings, sequences and numbers as JSON values; null stands for what is no finite number."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write a text file, whole or piece by piece, under a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}.new")
    with disk_errors(path):
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            sync(file)
        temporary.replace(path)
        _sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes under a temporary name, wait until the disk has them, and rename; its folder is made."""
    temporary = path.with_name(f".{path.name}.new")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            sync(file)
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """Give an empty folder to fill; it takes its name when the block ends well, replacing an older one whole."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.new")
    with disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if path.is_dir():  # an empty one that somebody has made as they want it
            temporary.chmod(path.stat().st_mode & 0o7777)
        readable = temporary.stat().st_mode & 0o666  # as the umask, or that somebody, has it
        try:
            yield temporary
            for file in filter(Path.is_file, temporary.iterdir()):
                file.chmod(readable)  # transformers writes weights that only their owner can read
                with file.open("rb+") as written:
                    sync(written)
            _sync_folder(temporary)
            if path.exists():
                remove_folder(path)
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder under a hidden name, so that one that a kill leaves half removed is not taken for whole."""
    going = path.with_name(f".{path.name}.old")
    shutil.rmtree(going, ignore_errors=True)
    path.replace(going)
    shutil.rmtree(going)


@contextlib.contextmanager
def removed_if_refused(path: Path) -> Generator[None]:
    """Remove a folder that the block has begun to fill if it ends with a refusal."""
    try:
        yield
    except FedloomError:
        shutil.rmtree(path, ignore_errors=True)
        raise


def sync(file: IO[Any]) -> None:
    """Wait until the disk has a file."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder: a rename is no more than a promise before."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
