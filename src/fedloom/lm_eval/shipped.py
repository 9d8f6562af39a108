"""The tasks by name: those that lm-eval defines, those that lie here as files, and where a file of data has to lie.

Whatever lm-eval defines is asked and scored by its definition, so that figures are comparable with published ones. What
runs programs is defined here: lm-eval runs them unconfined, in its own process tree.
"""

from dataclasses import dataclass
from pathlib import Path

from fedloom.base import config
from fedloom.lm_eval.task_file import TaskFile, read_task_file

__all__ = ["FORMATS", "HARNESS", "HarnessTask", "own_task", "own_tasks", "sources"]

FORMATS = (".jsonl", ".json", ".parquet", ".csv")
"""Extensions of data files, in the order in which they are looked for."""

_FILES, _HARNESS = (Path(__file__).parent / name for name in ("task_files", "harness_tasks.toml"))


@dataclass(frozen=True, kw_only=True)
class HarnessTask:
    """A task that lm-eval defines, with local data."""

    task: str
    """lm-eval's name; of a group all its members are asked."""
    folder: str
    """Where lm-eval defines it, below its folder of tasks."""
    columns: tuple[str, ...]
    source: str
    subset: str = ""
    """Column that tells a group's members apart; "" for a single task."""


HARNESS = {name: config.build(HarnessTask, table, name) for name, table in config.read_toml(_HARNESS).items()}
"""Our name -> lm-eval's task."""


def own_tasks() -> list[str]:
    """Return the names of the tasks that lie here as files."""
    return sorted(file.stem for file in _FILES.glob("*.toml"))


def own_task(name: str) -> TaskFile:
    """Return a task that lies here as a file."""
    return read_task_file(_FILES / f"{name}.toml")


def sources() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return the columns of every named task and what to fetch for it."""
    known = HARNESS | {name: own_task(name) for name in own_tasks()}
    return {name: (task.columns, task.source) for name, task in sorted(known.items())}
