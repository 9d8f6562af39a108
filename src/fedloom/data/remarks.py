"""What reading data left out, counted: on its way from a source to the partition card, whichever source it is."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["collected", "remark"]

_COLLECTED: ContextVar[list[str] | None] = ContextVar("remarks", default=None)


@contextmanager
def collected() -> Generator[list[str]]:
    """Give the list of what is remarked inside."""
    told: list[str] = []
    token = _COLLECTED.set(told)
    try:
        yield told
    finally:
        _COLLECTED.reset(token)


def remark(text: str) -> None:
    """Let the run's owner know of something that was left out."""
    told = _COLLECTED.get()
    if told is not None:
        told.append(text)
