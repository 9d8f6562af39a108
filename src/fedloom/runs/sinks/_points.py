"""What every sink needs: a line of `metrics.jsonl` as one point of a curve, and the library that draws it."""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from fedloom.base.errors import RunError

__all__ = ["point", "refusals"]


def point(line: Mapping[str, Any]) -> tuple[str, int, float] | None:
    """Return (name, round, value) of a line; None where the value is not known, as a loss under privacy.

    A line of one training among several (local models, some clients at a time) has their name behind its own.
    """
    if not line["weight"]:
        return None
    value = line["total"] / line["weight"]
    name = f"{line['name']}/{line['leg']}" if line["leg"] else line["name"]
    return (name, line["round"], value) if math.isfinite(value) else None


@contextmanager
def refusals(kind: type[Exception], sink: str) -> Generator[None]:
    """Turn a library's own error, as of a server that is not there, into one line."""
    try:
        yield
    except kind as error:
        raise RunError(
            f"sinks: '{sink}' did not take the numbers ({' '.join(str(error).split())}); the run directory has them: "
            "repair that, or leave the sink out."
        ) from error
