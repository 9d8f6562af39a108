"""What a simulation knows of its own data, in a file of its own: which records are wrong, what a document tells.

It is written before the first round and never read by what makes a result, not even to go on after a stop:
`fedloom.results.truth` reads it, where measuring begins, and no room below may import that.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedloom.base.files import write_atomic

__all__ = ["TRUTH", "write_truth"]

TRUTH = "truth.json"


def write_truth(folder: Path, table: Mapping[str, Any]) -> None:
    """Write the truth of a simulation into its run directory; where there is none, no file."""
    if table:
        write_atomic(folder / TRUTH, json.dumps(table, indent=1, sort_keys=True))
