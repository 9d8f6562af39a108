"""The exception tree: every refusal of fedloom, each also a class of the standard library.

    FedloomError (Exception)
    ├── ConfigError (ValueError)        a run file or a component's settings are wrong
    │   └── UnknownNameError (KeyError) no plug-in, key or preset of that name
    ├── DataError (ValueError)          a record, a file of records or a partition is wrong
    │   └── MissingFileError (FileNotFoundError)
    ├── ModelError (ValueError)         a model, an adapter or a tokenizer does not fit
    ├── TrainingError (ArithmeticError) NaN, infinity or no supervised token during a run
    ├── MemoryExceededError (MemoryError)
    ├── CompletionError (RuntimeError)  a server or a model gave no answer; what was answered is kept
    └── RunError (RuntimeError)         a run directory or a checkpoint cannot be used

A message is one sentence in this order: where, what was found, what is allowed, what to do. The command line prints
it as one line and exits with code 2. A bug is no refusal: it is left to crash.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "CompletionError",
    "ConfigError",
    "DataError",
    "FedloomError",
    "MemoryExceededError",
    "MissingFileError",
    "ModelError",
    "RunError",
    "TrainingError",
    "UnknownNameError",
    "one_line",
    "suggest",
]


class FedloomError(Exception):
    """The root of all refusals."""

    def __str__(self) -> str:
        """Return the message as given (a KeyError would quote it)."""
        return str(self.args[0]) if self.args else ""


class ConfigError(FedloomError, ValueError):
    """A run file or a component's settings are wrong."""


class UnknownNameError(ConfigError, KeyError):
    """No plug-in, key or preset has that name."""


class DataError(FedloomError, ValueError):
    """A record, a file of records or a partition is wrong."""


class MissingFileError(DataError, FileNotFoundError):
    """A file or folder that a run names does not exist."""


class ModelError(FedloomError, ValueError):
    """A model, an adapter or a tokenizer does not fit."""


class TrainingError(FedloomError, ArithmeticError):
    """Training met NaN, infinity or nothing to learn from."""


class MemoryExceededError(FedloomError, MemoryError):
    """The device has too little memory for the run."""


class CompletionError(FedloomError, RuntimeError):
    """A server or a model gave no answer; what was answered before is kept."""


class RunError(FedloomError, RuntimeError):
    """A run directory or a checkpoint cannot be used."""


def one_line(said: object) -> str:
    """Return what is said, often by another's error, in one line."""
    return " ".join(str(said).split())


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the tail of a message about an unknown name: the nearest known one and all that are known.

    >>> suggest("medan", ["mean", "median"])
    "Did you mean 'median'? Known: mean, median."
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
