"""The truth of a simulation, for those who measure: no room that makes a result may import this."""

import json
from pathlib import Path
from typing import Any

from fedloom.base.errors import MissingFileError, RunError
from fedloom.runs.truth import TRUTH

__all__ = ["read_truth"]


def read_truth(folder: Path) -> dict[str, Any]:
    """Return what the data source of a run said of its data (`Source.truth`), by kind and client."""
    file = folder / TRUTH
    if not file.is_file():
        raise MissingFileError(f"{file}: missing; the data of the run are no simulation that knows a truth.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file}: is no JSON ({error}); start the run anew.") from error
