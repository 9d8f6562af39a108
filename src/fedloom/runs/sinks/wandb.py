"""Weights & Biases: one run of the project per run directory, offline unless asked otherwise. Extra: `wandb`.

Run by hand against wandb 0.31.0 offline, never online; the tests use a module of the same functions.
"""

import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Sink
from fedloom.runs.sinks._points import point, refusals

__all__ = ["WeightsAndBiases"]


@plugin("wandb")
class WeightsAndBiases(Sink):
    """Writes below the run's folder `wandb/`; `wandb sync` sends an offline run when its owner wants that."""

    project: str = "fedloom"
    """Name of the project."""
    mode: Literal["offline", "online"] = "offline"
    """Online sends the run file and every number to the server that wandb is set up for, while the run goes on."""

    @contextmanager
    def open(self, folder: str, table: Mapping[str, Any]) -> Generator[Callable[[Mapping[str, Any]], None]]:
        """Give what takes the lines.

        A run that goes on is a new one there, with all its lines; of an offline one the files before are removed, of
        an online one both remain, in one group.
        """
        module, name = library("wandb", "sink 'wandb'"), Path(folder).name
        if self.mode == "offline":
            shutil.rmtree(Path(folder) / "wandb", ignore_errors=True)
        with refusals(module.errors.Error, self.name):
            run = module.init(
                project=self.project,
                name=name,
                group=name,
                dir=folder,
                mode=self.mode,
                config=dict(table),
                settings=module.Settings(console="off", silent=True, reinit="create_new"),
            )
        # Their own step must never go back; legs of local models begin at round 0 again.
        run.define_metric("round")
        run.define_metric("*", step_metric="round")

        def take(line: Mapping[str, Any]) -> None:
            if found := point(line):
                label, round, value = found
                run.log({"round": round, label: value})

        ended = False
        try:
            yield take
            ended = True
        finally:
            run.finish(exit_code=0 if ended else 1)
