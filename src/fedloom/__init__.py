"""Many owners of private data build one language model together, without the data leaving its owner.

    import fedloom

    run = fedloom.load_run("experiments/quickstart.toml", ["rounds=2"])
    for event in fedloom.start(run, "runs/mine"):
        print(event)

Names are imported when they are first used, so that importing fedloom costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedloom.api import load_run, resume, start
    from fedloom.base.errors import FedloomError
    from fedloom.runs.execute import Note, RoundDone
    from fedloom.runs.measure import Evaluated
    from fedloom.session import Progress, Result, Run, compare
    from fedloom.world import World

__all__ = [
    "Evaluated",
    "FedloomError",
    "Note",
    "Progress",
    "Result",
    "RoundDone",
    "Run",
    "World",
    "compare",
    "load_run",
    "resume",
    "start",
]

__version__ = "0.1.0"

_HOMES = {
    "Evaluated": "fedloom.runs.measure",
    "FedloomError": "fedloom.base.errors",
    "Note": "fedloom.runs.execute",
    "Progress": "fedloom.session",
    "Result": "fedloom.session",
    "RoundDone": "fedloom.runs.execute",
    "Run": "fedloom.session",
    "World": "fedloom.world",
    "compare": "fedloom.session",
    "load_run": "fedloom.api",
    "resume": "fedloom.api",
    "start": "fedloom.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedloom' has no attribute '{name}'. Public: {', '.join(__all__)}.")
    return vars(importlib.import_module(_HOMES[name]))[name]
