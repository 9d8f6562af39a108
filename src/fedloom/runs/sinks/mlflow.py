"""MLflow: one run of the experiment per run directory. Extra: `mlflow`.

Run by hand against mlflow 3.17.2: its own default, an address of SQLite, a folder. The tests use a module of the same
methods.
"""

import json
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedloom.base.extras import library
from fedloom.base.files import disk_errors
from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Sink
from fedloom.runs.sinks._points import point, refusals

__all__ = ["MLflow"]

_FOLDER = "fedloom.folder"
_MOST = 100  # parameters that MLflow takes at once


@plugin("mlflow")
class MLflow(Sink):
    """Writes to a tracking server or database; the settings of the run are its parameters, `local.lr` for one.

    Characters that MLflow refuses in a metric's name are replaced by their code points, `.2c.` for a comma.
    """

    tracking_uri: str = ""
    """Where to write: an address, or a folder, in which a database `mlflow.db` is made; empty: where mlflow itself is
    set up to."""
    experiment: str = "fedloom"
    """Name of the experiment."""

    @contextmanager
    def open(self, folder: str, table: Mapping[str, Any]) -> Generator[Callable[[Mapping[str, Any]], None]]:
        """Give what takes the lines; a run of the same folder is deleted there, for all its lines come again."""
        module = library("mlflow", "sink 'mlflow'")
        with refusals(module.exceptions.MlflowException, self.name):
            client = module.MlflowClient(tracking_uri=_address(self.tracking_uri))
            run = self._begin(client, folder)
            told = [module.entities.Param(_allowed(name), value) for name, value in _parameters(table)]
            for start in range(0, len(told), _MOST):
                client.log_batch(run, params=told[start : start + _MOST])

        def take(line: Mapping[str, Any]) -> None:
            if found := point(line):
                name, round, value = found
                with refusals(module.exceptions.MlflowException, self.name):
                    client.log_metric(run, _allowed(name), value, timestamp=int(time.time() * 1000), step=round)

        status = "FAILED"
        try:
            yield take
            status = "FINISHED"
        finally:
            with refusals(module.exceptions.MlflowException, self.name):
                client.set_terminated(run, status)

    def _begin(self, client: Any, folder: str) -> str:
        """Return the number of a new run in place of those of the same folder."""
        known = client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else client.create_experiment(self.experiment)
        place = str(Path(folder).resolve())
        for old in client.search_runs([experiment], filter_string=f"tags.`{_FOLDER}` = {json.dumps(place)}"):
            client.delete_run(old.info.run_id)
        return client.create_run(experiment, tags={_FOLDER: place}, run_name=Path(folder).name).info.run_id


def _address(tracking_uri: str) -> str | None:
    """Return the address of a tracking server; of a folder that of a database in it: mlflow keeps no files any more."""
    if not tracking_uri or re.match(r"[a-z][a-z0-9+.-]+:|databricks|uc$", tracking_uri):
        return tracking_uri or None
    folder = Path(tracking_uri).resolve()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def _parameters(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the full name of each setting with its value as text; lists as JSON."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _parameters(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value)


def _allowed(name: str) -> str:
    """Return a name that MLflow takes: letters, digits, `_`, `-`, `.`, `/` and blanks."""
    return re.sub(r"[^/\w.\- ]", lambda found: f".{ord(found[0]):x}.", name)
