"""What a run ran on: versions, devices, commit and command line, as plain values for `environment.json`."""

import platform
import socket
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fedloom.base.machine import total_bytes

__all__ = ["dirty_diff", "environment", "versions"]

_PACKAGES = ("fedloom", "torch", "transformers", "tokenizers", "safetensors", "numpy", "peft", "datasets")

_PACKAGE = Path(__file__).parents[1]


def versions() -> dict[str, str]:
    """Return the version of each package that bears on the numbers; "" where one is not installed."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    return found


@cache
def _git(*words: str) -> str:
    """Return what git says of the source tree, asked once: the code in memory is that of when it was imported."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def dirty_diff() -> str:
    """Return the uncommitted changes of the source tree that fedloom runs from, "" for an installed package."""
    return _git("diff", "HEAD", "--", str(_PACKAGE))


def environment() -> dict[str, Any]:
    """Return a record of versions, devices, commit and command line."""
    cuda = torch.cuda.is_available()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "versions": versions(),
        "commit": _git("rev-parse", "HEAD"),
        "cuda": torch.version.cuda or "",
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else [],
        "threads": torch.get_num_threads(),
        "memory_bytes": total_bytes(),
    }
