"""The results as a table, a plot and a part of docs/performance.md."""

import io
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Figure, figure_of

__all__ = ["machine", "markdown", "plot", "write_atomic", "write_docs"]

DOCS = ROOT / "docs" / "performance.md"
_LIBRARIES = ("torch", "transformers", "peft", "trl", "flwr", "opacus")


def machine(device: str) -> dict[str, str | int]:
    """Return what the figures were measured on, without names of hosts; of libraries, those that are installed."""
    import torch

    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found: dict[str, str | int] = {"cpu": names[0] if names else platform.machine(), "cores": len(names), "threads": 1}
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    found |= {name: version(name) for name in _LIBRARIES if find_spec(name)}
    return {**found, "python": platform.python_version(), "commit": _commit()}


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "src") else "")


def markdown(done: Mapping[str, Any]) -> str:
    """Return the results as two tables: figures with a target, and all the others."""
    figures = [figure_of(figure) for figure in done["figures"]]
    facts = ", ".join(f"{key} {value}" for key, value in done["machine"].items())
    minutes = sum(done["seconds"].values()) / 60
    parts = [
        f"Measured in {minutes:.0f} minutes with {facts}.",
        _table(("", "what", "target", "figure", "", "ours", "other"), map(_with_target, filter(_has_target, figures))),
        _table(("", "what", "figure", "ours", "other"), (_row(one) for one in figures if not _has_target(one))),
    ]
    parts += [f"- {figure.entry}, {figure.what}: {figure.note}" for figure in figures if figure.note]
    parts += [f"- {name} failed: {error}" for name, error in done["failed"].items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _has_target(figure: Figure) -> bool:
    return figure.target is not None


def _with_target(figure: Figure) -> tuple[str, ...]:
    target = figure.target
    sign, goal, met = (target.sign, target.value, target.met(figure.value)) if target else ("", 0.0, True)
    entry, what, value, *sides = _row(figure)
    return (
        entry,
        what,
        f"{sign.replace('>=', '≥').replace('<=', '≤')} {goal:g}",
        value,
        "" if met else "short",
        *sides,
    )


def _row(figure: Figure) -> tuple[str, ...]:
    sides = tuple(str(sample) if sample else "" for sample in (figure.ours, figure.other))
    return (figure.entry, figure.what, f"{figure.value:.3g} {figure.unit}", *sides)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]) if lines else ""


def plot(done: Mapping[str, Any], path: Path) -> None:
    """Draw how far every figure is from its target."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "fedloom"  # the same figures give the same file
    figures = [figure for figure in map(figure_of, done["figures"]) if figure.target]
    bars = [figure.target.reached(figure.value) for figure in figures if figure.target]
    labels = [f"{figure.entry}  {figure.what}: {figure.value:.3g} {figure.unit}" for figure in figures]
    drawing, axes = pyplot.subplots(figsize=(10, 1.2 + 0.32 * len(figures)), layout="constrained")
    axes.barh(labels, bars, color=["tab:blue" if bar >= 1 else "tab:orange" for bar in bars])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("how many times the target is reached; orange is short of it")
    axes.invert_yaxis()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(drawing)
    write_atomic(path, buffer.getvalue().decode())


def write_docs(done: Mapping[str, Any], device: str) -> None:
    """Put the table between the markers of docs/performance.md."""
    begin, end = f"<!-- begin {device} -->\n", f"<!-- end {device} -->"
    head, found, rest = DOCS.read_text(encoding="utf-8").partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{DOCS.name}: no marks '{begin.strip()}' and '{end}' to write between.")
    write_atomic(DOCS, f"{head}{begin}\n{markdown(done)}\n{end}{tail}")


def write_atomic(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
