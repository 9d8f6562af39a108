"""Run a program that a model wrote, on request only, in a process that can do little and is watched.

What holds, on Linux x86-64 with Landlock (5.13 or later) and without root, tested one by one:

* processor time, wall time, memory, the size of a file and of all files together are limited;
* no second process and no thread, so no fork bomb; no signal to any process;
* no socket of any kind, so no network and no local server;
* reads only of the interpreter, its standard library and the system's libraries, writes only in a new folder, which is
  removed and holds no further folders; none of the caller's environment, open files, standard input or output.

What does not hold: it is the same kernel, so a hole in the kernel is a hole here; a program may read everything beneath
the interpreter and /usr, and can tell whether a path elsewhere exists, how large and how old; a program that looks for
it can find out how it is told to have passed, and say so falsely.
Where a part of the system that this needs is missing, running is refused rather than done with less.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedloom.base.errors import ConfigError
from fedloom.lm_eval import _confine

__all__ = ["Limits", "Verdict", "run_program"]

Verdict = Literal["passed", "failed", "stopped"]
"""The program came to its end; it raised, exited early or was refused something; it was killed at a limit."""

_POLL_S = 0.02
_BLOCK_BYTES = 4096  # what a file takes at least


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use."""

    cpu_s: int = 5
    wall_s: float = 30.0
    memory_bytes: int = 1 << 29
    file_bytes: int = 1 << 20
    """Size of one file."""
    folder_bytes: int = 1 << 24
    """Size of all its files."""


def run_program(program: str, limits: Limits | None = None) -> Verdict:
    """Return how a Python program fared; a machine that cannot confine it raises ConfigError.

    It has passed if its last line was reached: leaving early with exit code 0 is a failure.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="fedloom-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        reached = folder / secrets.token_hex(16)
        file = folder / "program.py"
        file.write_text(f"{program}\n\nopen({str(reached)!r}, 'x').close()\n", encoding="utf-8", errors="replace")
        process = _start(folder, file, limits)
        try:
            killed = _watch(process, folder, limits)
        finally:
            _kill(process)
        if process.returncode == -_confine.UNCONFINED:
            raise ConfigError(
                "--allow-code: this machine cannot confine a program; allowed is Linux 5.13 or later on x86-64, with "
                "Landlock and filters of system calls: leave the code tasks out or run them there."
            )
        if killed or process.returncode < 0:
            return "stopped"
        return "passed" if process.returncode == 0 and reached.exists() else "failed"


def _start(folder: Path, file: Path, limits: Limits) -> subprocess.Popen[bytes]:
    # The interpreter itself, not the virtual environment's link to it: installed packages stay out of reach.
    interpreter = str(Path(sys.executable).resolve())
    numbers = map(str, (limits.cpu_s, limits.memory_bytes, limits.file_bytes))
    return subprocess.Popen(
        [interpreter, "-I", "-S", "-B", _confine.__file__, str(folder), str(file), *numbers],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder)},
        start_new_session=True,
    )


def _watch(process: subprocess.Popen[bytes], folder: Path, limits: Limits) -> bool:
    """Wait for the end; return whether the process went over a limit that it does not keep by itself."""
    end = time.monotonic() + limits.wall_s
    while process.poll() is None:
        if time.monotonic() > end or _size_bytes(folder) > limits.folder_bytes:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
    return False


def _size_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):  # the program removes files meanwhile
        # Empty files count, too: a million of them would not be small.
        total = sum(max(path.lstat().st_size, _BLOCK_BYTES) for path in folder.iterdir())
    return total


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
