"""TensorBoard: one scalar curve per name, in the run's folder `tensorboard/`. Extra: `tensorboard`."""

import importlib
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Sink
from fedloom.runs.sinks._points import point

__all__ = ["TensorBoard"]

_FLUSH_S = 10  # the library's own is 120 s, longer than many runs


@plugin("tensorboard")
class TensorBoard(Sink):
    """Writes event files; `tensorboard --logdir DIR` shows them, those of a folder of runs side by side."""

    @contextmanager
    def open(self, folder: str, table: Mapping[str, Any]) -> Generator[Callable[[Mapping[str, Any]], None]]:
        """Give what takes the lines; older event files of the run are removed, as it hands over all lines again."""
        library("tensorboard", "sink 'tensorboard'")
        writers = importlib.import_module("torch.utils.tensorboard")
        place = Path(folder) / "tensorboard"
        shutil.rmtree(place, ignore_errors=True)
        writer = writers.SummaryWriter(log_dir=str(place), flush_secs=_FLUSH_S)

        def take(line: Mapping[str, Any]) -> None:
            if found := point(line):
                name, round, value = found
                writer.add_scalar(name, value, round)

        try:
            yield take
        finally:
            writer.close()
