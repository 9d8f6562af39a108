"""Copies of `metrics.jsonl` to the sinks that a run names.

The file comes first: a line is on disk, then every sink is handed it in the order of the run file, then the event that
it belongs to is yielded. A resumed run opens its sinks anew and hands over what the file, cut back to the checkpoint,
already holds; so a sink ends with the lines of the file, each once and in their order, however often a run was stopped.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, TypeVar

from fedloom.base import config
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import TuningRun

__all__ = ["forwarded"]

EventType = TypeVar("EventType")
_LOG = "metrics.jsonl"


def forwarded(events: Generator[EventType], run: TuningRun, directory: RunDirectory) -> Iterator[EventType]:
    """Yield the events of a run, its new lines handed over before each; sinks open before the first one is drawn."""
    with ExitStack() as stack:
        stack.enter_context(closing(events))
        table, folder = config.table_of(run), str(directory.path)
        takers = [stack.enter_context(sink.open(folder, table)) for sink in run.sinks]
        read = 0  # bytes; the first event is drawn after the file was cut back
        for event in events:
            read = _hand_over(directory, read, takers) if takers else 0
            yield event
        if takers:
            _hand_over(directory, read, takers)


def _hand_over(directory: RunDirectory, read: int, takers: list[Callable[[Mapping[str, Any]], None]]) -> int:
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
