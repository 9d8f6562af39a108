"""What every benchmark shares: its settings, how two sides are timed in turn, and the figures it hands back.

A benchmark is a module `benchmarks/<name>.py` with a function

    def main(settings: Settings) -> list[Figure]: ...

that ends with `if __name__ == "__main__": entry(main)`. `python -m benchmarks` runs each in a process of its own, one
after another; `python -m benchmarks.<name> [--device cpu|cuda] [--quick]` runs one alone. Sides that are compared run
in turn within one process (A B A B ...), so that whatever else the machine does meets both; `alternate` does that.
Memory is the peak of a fresh process: `in_fresh_process` starts the module again with a `part`.

This module imports no torch until it is needed, so that start-up times are not its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "RESULTS",
    "Figure",
    "Sample",
    "Settings",
    "Target",
    "alternate",
    "entry",
    "environment",
    "figure_of",
    "forget_peak",
    "in_fresh_process",
    "peak_bytes",
    "ratio",
    "report",
    "silence",
]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PART_MARK = "benchmark part: "


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    device: Literal["cpu", "cuda"] = "cpu"
    quick: bool = False
    """Small sizes and few repetitions: shows that a benchmark runs, not how fast anything is."""
    part: str = ""
    """A part to run alone, for benchmarks that need a fresh process for each; empty runs all."""

    def repeats(self, usual: int) -> int:
        """Return how often a side runs."""
        return 2 if self.quick else usual


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one side."""

    values: tuple[float, ...]
    unit: str = "s"

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Largest minus smallest value over the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def scaled(self, factor: float, unit: str) -> "Sample":
        """Return the values times a factor, in another unit."""
        return Sample(tuple(value * factor for value in self.values), unit)

    def __str__(self) -> str:
        return f"{self.median:.4g} {self.unit} (spread {self.spread:.0%})"


@dataclass(frozen=True)
class Target:
    """What a figure has to reach."""

    sign: Literal[">=", "<="]
    value: float

    def met(self, value: float) -> bool:
        """Return whether a value reaches the target."""
        return value >= self.value if self.sign == ">=" else value <= self.value

    def reached(self, value: float) -> float:
        """Return how many times a positive value reaches the target; 1 is just met."""
        return value / self.value if self.sign == ">=" else self.value / value


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table: a figure, what it was computed from, and what it was to reach."""

    entry: str
    """The letter of issue 3, part 6: a to g; or a word."""
    what: str
    """What is compared, in a few words."""
    value: float
    unit: str = "x"
    target: Target | None = None
    ours: Sample | None = None
    other: Sample | None = None
    work: Mapping[str, int | float | str] = field(default_factory=dict)
    """The work done: supervised and padded tokens, steps, bytes; equal on both sides unless said."""
    note: str = ""
    """Why the figure is what it is, where it is short of its target or not comparable."""

    def lines(self) -> str:
        """Return the figure as text."""
        target = f"  target {self.target.sign} {self.target.value:g} {self._verdict()}" if self.target else ""
        text = f"[{self.entry}] {self.what}: {self.value:.3g} {self.unit}{target}"
        if self.ours:
            text += f"\n      ours {self.ours}" + (f"; other {self.other}" if self.other else "")
        if self.work:
            text += "\n      " + ", ".join(f"{key} {_short(value)}" for key, value in self.work.items())
        return text + (f"\n      {self.note}" if self.note else "")

    def _verdict(self) -> str:
        return "met" if self.target and self.target.met(self.value) else "MISSED"


def figure_of(table: Mapping[str, Any]) -> Figure:
    """Return the figure that `dataclasses.asdict` made a table of."""
    sides = {
        side: Sample(tuple(table[side]["values"]), table[side]["unit"]) for side in ("ours", "other") if table[side]
    }
    target = Target(table["target"]["sign"], table["target"]["value"]) if table["target"] else None
    plain = {key: table[key] for key in ("entry", "what", "value", "unit", "work", "note")}
    return Figure(**plain, **sides, target=target)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else (f"{value:,}" if isinstance(value, int) else f"{value:.4g}")


def alternate(
    sides: Mapping[str, Callable[[], object]], *, repeats: int, settings: Settings, warm: int = 1
) -> dict[str, Sample]:
    """Return the seconds of each side, run in turn `warm` times unmeasured and then `repeats` times."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm + repeats):
        for name, side in sides.items():
            _wait(settings)
            start_s = time.perf_counter()
            side()
            _wait(settings)
            if number >= warm:
                seconds[name].append(time.perf_counter() - start_s)
    return {name: Sample(tuple(values)) for name, values in seconds.items()}


def _wait(settings: Settings) -> None:
    if settings.device == "cuda":
        import torch

        torch.cuda.synchronize()


def ratio(
    entry: str,
    what: str,
    *,
    ours: Sample,
    other: Sample,
    target: Target | None = None,
    work: Mapping[str, int | float | str] | None = None,
    note: str = "",
) -> Figure:
    """Return how many times longer the other side takes: the ratio of the medians, with its range over the pairs."""
    pairs = [b / a for a, b in zip(ours.values, other.values, strict=False)]
    work = {**(work or {}), "pairs": f"{min(pairs):.2f} to {max(pairs):.2f}"}
    value = other.median / ours.median
    return Figure(entry=entry, what=what, value=value, target=target, ours=ours, other=other, work=work, note=note)


def peak_bytes(settings: Settings) -> int:
    """Return the peak memory of this process: resident on the CPU, allocated on a CUDA device.

    VmHWM and not `ru_maxrss`, which a process inherits from the one that started it.
    """
    if settings.device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return _status_bytes("VmHWM")


def forget_peak(settings: Settings) -> int:
    """Return the memory that this process holds now, from which on `peak_bytes` counts."""
    if settings.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])


def in_fresh_process(module: str, part: str, settings: Settings) -> dict[str, Any]:
    """Return what `module` reports for a part: `main` there calls `report` when `settings.part` is set."""
    command = [sys.executable, "-m", module, "--device", settings.device, "--part", part]
    done = subprocess.run(
        command + ["--quick"] * settings.quick, capture_output=True, text=True, check=False, cwd=ROOT, env=environment()
    )
    marked = [line for line in done.stdout.splitlines() if line.startswith(_PART_MARK)]
    if done.returncode or not marked:
        raise RuntimeError(f"{module} --part {part} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(marked[-1].removeprefix(_PART_MARK))


def report(values: Mapping[str, Any]) -> list[Figure]:
    """Print what a part has measured for the process that started it; returns no figures."""
    print(_PART_MARK + json.dumps(values), flush=True)
    return []


def environment() -> dict[str, str]:
    """Return the environment of every benchmark: one thread, offline, no telemetry."""
    fixed = {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "MPLBACKEND": "agg",
    }
    return {**os.environ, **fixed}


def silence() -> None:
    """Keep back what the libraries warn of, log and draw, and compute on one thread."""
    import torch
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)


def entry(main: Callable[[Settings], Sequence[Figure]]) -> None:
    """Run one benchmark from the command line: print its figures, and write them as JSON where `--out` says."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ.update(environment())
    silence()
    figures = main(Settings(given.device, given.quick, given.part))
    for figure in figures:
        print(figure.lines(), flush=True)
    if given.out:
        given.out.write_text(json.dumps([asdict(figure) for figure in figures]), encoding="utf-8")
