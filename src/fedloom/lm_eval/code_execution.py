"""Run a program that a model wrote, on request only, in a process that can do little and is watched.

What holds, on Linux x86-64 with Landlock (5.13 or later) and without root, tested one by one:

* processor time, idle time, memory, the size of a file and of all files together are limited, those that were unlinked
  or mapped among them; no limit depends on what else the machine does;
* no second process and no thread, so no fork bomb; no signal to any process;
* no socket of any kind, so no network and no local server;
* reads only of the interpreter, its standard library and the system's libraries, writes only in a new folder, which is
  removed and holds no further folders; none of the caller's environment, open files, standard input or output;
* what tests a program runs in a process of its own, confined alike, calls its functions from there and compares plain
  values: a program that redefines things, looks through frames or starts anew changes no comparison.

What does not hold: it is the same kernel, so a hole in the kernel is a hole here; a program may read everything beneath
the interpreter and /usr, and can tell whether a path elsewhere exists, how large and how old; that a program without
tests has come to its end is what it says itself. A test fails that hands a function to the program, as none can travel,
or asks an object of the program for its parts; iterators are lists to it.
Where a part of the system that this needs is missing, running is refused rather than done with less.
"""

import ast
import builtins
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedloom.base.errors import ConfigError
from fedloom.lm_eval import _apart, _confine

__all__ = ["Limits", "Verdict", "run_program"]

Verdict = Literal["passed", "failed", "stopped"]
"""The program came to its end and its tests to theirs; one of them raised, exited early or was refused something; it
was killed at a limit."""

_POLL_S = 0.02
_BLOCK_BYTES = 4096  # what a file takes at least
_Process = subprocess.Popen[bytes]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use, and what tests it as much again."""

    cpu_s: int = 5
    idle_s: float = 30.0
    """Seconds in which neither of the two does anything; waiting for a processor is none of them."""
    memory_bytes: int = 1 << 29
    file_bytes: int = 1 << 20
    """Size of one file."""
    folder_bytes: int = 1 << 24
    """Size of all its files."""


def run_program(program: str, tests: str = "", *, before: str = "", limits: Limits | None = None) -> Verdict:
    """Return how a Python program fared with its tests; a machine that cannot confine it raises ConfigError.

    `before` is how the program begins in the task's own words, of which tests may use what the program does not give:
    all but the last function in it. It has passed if its end and that of the tests were reached.
    """
    limits = limits or Limits()
    with (
        tempfile.TemporaryDirectory(prefix="fedloom-", ignore_cleanup_errors=True) as own,
        tempfile.TemporaryDirectory(prefix="fedloom-", ignore_cleanup_errors=True) as other,
    ):
        home, bench = Path(own).resolve(), Path(other).resolve()
        _write(home / "program.py", program)
        _write_tests(bench, program, tests, before)
        with _joined(home, bench, limits) as (runner, tester):
            killed = _watch(runner, tester, home, limits)
        if -_confine.UNCONFINED in (runner.returncode, tester.returncode):
            raise ConfigError(
                "--allow-code: this machine cannot confine a program; allowed is Linux 5.13 or later on x86-64, with "
                "Landlock and filters of system calls: leave the code tasks out or run them there."
            )
        if killed or tester.returncode < 0:
            return "stopped"
        return "passed" if tester.returncode == 0 else "failed"


def _write(file: Path, text: str) -> None:
    file.write_text(f"{text}\n", encoding="utf-8", errors="replace")


def _write_tests(bench: Path, program: str, tests: str, before: str) -> None:
    """Write the tests, what the program may not give them, and what they find besides."""
    told = _tree(before)
    known = [node.name for node in told.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    theirs = {*vars(builtins), *known[:-1]} - {*known[-1:]}
    (bench / "theirs.json").write_text(json.dumps(sorted(theirs)))
    head = "\n".join(_imports(_tree(program), theirs | {*known}))
    _write(bench / "tests.py", f"{head}\n{tests}")
    if before and told.body:
        _write(bench / "before.py", before)


def _tree(text: str) -> ast.Module:
    """Return the syntax of a text; of one that is no Python nothing."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.parse(text)
    return ast.Module([], [])


def _imports(tree: ast.Module, taken: set[str]) -> Iterator[str]:
    """Yield what a program imports under its own name, as tests may use it; nothing that takes another's place."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            plain = [one for one in node.names if one.asname is None and one.name.partition(".")[0] not in taken]
            if len(plain) == len(node.names):
                yield ast.unparse(node)


@contextlib.contextmanager
def _joined(home: Path, bench: Path, limits: Limits) -> Generator[tuple[_Process, _Process]]:
    """Give the program's process and that of its tests, each one's output the other's input; both have ended after."""
    (heard, said), (asked, asking) = os.pipe(), os.pipe()
    started: list[_Process] = []
    try:
        try:
            started.append(_start(home, ["run", str(home / "program.py")], limits, stdin=asked, stdout=said))
            started.append(_start(bench, ["test", str(bench)], limits, stdin=heard, stdout=asking))
        finally:
            for end in (heard, said, asked, asking):
                os.close(end)
        yield started[0], started[1]
    finally:
        for process in started:
            _kill(process)


def _start(folder: Path, words: Sequence[str], limits: Limits, *, stdin: int, stdout: int) -> _Process:
    # The interpreter itself, not the virtual environment's link to it: installed packages stay out of reach.
    interpreter = str(Path(sys.executable).resolve())
    script = Path(shutil.copy(_apart.__file__, folder / "apart.py"))
    numbers = map(str, (limits.cpu_s, limits.memory_bytes, limits.file_bytes))
    return subprocess.Popen(
        [interpreter, "-I", "-S", "-B", _confine.__file__, str(folder), *numbers, str(script), *words],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder)},
        start_new_session=True,
    )


def _watch(runner: _Process, tester: _Process, folder: Path, limits: Limits) -> bool:
    """Wait for the tests' end; return whether the program went over a limit, be it one that it keeps by itself."""
    idle_s, last_s = 0.0, time.monotonic()
    while tester.poll() is None:
        now_s = time.monotonic()
        rests = _rests(runner) and _rests(tester)
        # A moment's work now and then does not begin anew what was rested.
        idle_s = max(0.0, idle_s + (now_s - last_s if rests else -4 * (now_s - last_s)))
        last_s = now_s
        if idle_s > limits.idle_s or _size_bytes(folder, runner.pid) > limits.folder_bytes:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            tester.wait(_POLL_S)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that was killed has been so before its tests heard of it
        runner.wait(1.0)
    return (runner.poll() or 0) < 0 and runner.returncode != -_confine.UNCONFINED


def _rests(process: _Process) -> bool:
    """Return whether a process waits for something other than a processor, or has ended."""
    try:
        state = (
            Path(f"/proc/{process.pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[0]
        )
    except OSError:
        return True
    return state in "SZXT"


def _size_bytes(folder: Path, pid: int) -> int:
    """Return the size of a folder's files, and of those that a process holds open or mapped without a name there."""
    sizes: dict[int, int] = {}
    for path in (folder, Path(f"/proc/{pid}/fd")):
        with contextlib.suppress(OSError):  # the program removes files and ends meanwhile
            for file in path.iterdir():
                with contextlib.suppress(OSError):
                    found = file.stat() if path != folder else file.lstat()
                    target = os.readlink(file) if path != folder else str(file)
                    if target.startswith(str(folder)):
                        # Empty files count, too: a million of them would not be small.
                        sizes[found.st_ino] = max(found.st_size, _BLOCK_BYTES)
    for inode, size in _mapped(folder, pid):
        sizes[inode] = max(size, sizes.get(inode, 0))
    return sum(sizes.values())


def _mapped(folder: Path, pid: int) -> Iterator[tuple[int, int]]:
    """Yield the number and size of each file of the folder that a process has mapped."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith(str(folder)):
                start, end = (int(place, 16) for place in fields[0].split("-"))
                yield int(fields[4]), end - start


def _kill(process: _Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
