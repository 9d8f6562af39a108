"""Copies of `metrics.jsonl` to the sinks that a run names.

The file comes first: a line is on disk, then every sink is handed it in the order of the run file, then the event that
it belongs to is yielded. A resumed run opens its sinks anew and hands over what the file, cut back to the checkpoint,
already holds; so a sink ends with the lines of the file, each once and in their order, however often a run was stopped.

A sink that cannot be opened is refused before the run; one that fails later is told at the end and stops nothing: the
file has what it lacks.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fedloom.base import config
from fedloom.base.errors import ConfigError, RunError
from fedloom.contracts.federated import Sink
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import TuningRun

__all__ = ["forwarded"]

EventType = TypeVar("EventType")
_LOG = "metrics.jsonl"


def forwarded(
    events: Generator[EventType], run: TuningRun, directory: RunDirectory, note: Callable[[str], EventType]
) -> Iterator[EventType]:
    """Yield the events of a run, its new lines handed over before each; sinks open before the first one is drawn.

    At the end a `note` tells of each sink that failed.
    """
    with ExitStack() as stack:
        stack.enter_context(closing(events))
        table, folder = config.table_of(run), str(directory.path)
        takers = [_Taker.begun(sink, stack.enter_context(ExitStack()), folder, table) for sink in run.sinks]
        read = 0  # bytes; the first event is drawn after the file was cut back
        for event in events:
            read = _hand_over(directory, read, takers) if takers else 0
            yield event
        if takers:
            _hand_over(directory, read, takers)
        for taker in takers:
            taker.close()
        yield from (note(taker.told) for taker in takers if taker.failed)


@dataclass
class _Taker:
    """An open sink, and what it did not take."""

    name: str
    take: Callable[[Mapping[str, Any]], None]
    opened_in: ExitStack
    failed: bool = False
    why: str = ""

    @classmethod
    def begun(cls, sink: Sink, stack: ExitStack, folder: str, table: Mapping[str, Any]) -> "_Taker":
        """Return the sink, opened; what it raises then is the run's refusal."""
        try:
            return cls(sink.name, stack.enter_context(sink.open(folder, table)), stack)
        except (RunError, OSError) as error:
            raise ConfigError(f"{error} The sink was not opened, so the run did not begin.") from error

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Hand a line over; a sink that once failed is given no more: each could wait for a server that is gone."""
        if not self.failed:
            with self._counting():
                self.take(line)

    def close(self) -> None:
        """Let the sink end well."""
        with self._counting():
            self.opened_in.close()

    @contextmanager
    def _counting(self) -> Generator[None]:
        try:
            yield
        except Exception as error:  # of a library that is not ours
            self.failed, self.why = True, self.why or " ".join(str(error).split())

    @property
    def told(self) -> str:
        """What its owner should know."""
        return f"WARNING: sink '{self.name}' failed and was given no more; metrics.jsonl has all lines: {self.why}"


def _hand_over(directory: RunDirectory, read: int, takers: Sequence[_Taker]) -> int:
    """Hand the lines behind the first `read` bytes to every taker and return how many bytes are read now."""
    if not (directory.path / _LOG).is_file():  # a note may come before the first line
        return read
    with (directory.path / _LOG).open("rb") as file:
        file.seek(read)
        for line in file:
            record = json.loads(line)
            for take in takers:
                take(record)
        return file.tell()
