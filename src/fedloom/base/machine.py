"""What the machine has: a device that is asked for, and memory."""

import os
import resource
import sys
from pathlib import Path
from typing import Literal

import torch

from fedloom.base.errors import ConfigError

__all__ = ["Device", "device_of", "free_bytes", "peak_bytes", "total_bytes"]

Device = Literal["auto", "cpu", "cuda"]


def device_of(name: Device) -> torch.device:
    """Return the device that is asked for; ConfigError for a CUDA device that is not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device: found 'cuda', but no CUDA device is there; use device = 'cpu' or 'auto'.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on the device; on the CPU within the limit of the control group, if any."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _meminfo().get("MemAvailable") or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    return min(free, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else free


def peak_bytes() -> int:
    """Return the most memory that this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def total_bytes() -> int:
    """Return the memory of the machine, 0 where the system does not tell."""
    return _meminfo().get("MemTotal", 0)


def _meminfo() -> dict[str, int]:
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
