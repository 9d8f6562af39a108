"""All benchmarks, one after another, each in a process of its own; a table with targets beside figures.

    python -m benchmarks [--device cpu|cuda] [--only a,flower] [--quick] [--write-docs]

Writes `benchmarks/results/<device>.json`, `.md` and `.svg`. With `--only`, what other entries have measured before is
kept. `--quick` shows that everything runs; its figures go to files of their own and mean nothing. `--write-docs` puts
the table into docs/performance.md without measuring anything.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import RESULTS, ROOT, environment, figure_of
from benchmarks._report import machine, markdown, plot, write_atomic, write_docs

__all__ = ["main"]

ENTRIES = {
    "federated": "a",
    "real_model": "a",
    "flower": "a",
    "cohort": "b",
    "private": "c",
    "real_private": "c",
    "aggregation": "d",
    "robust": "d",
    "codecs": "d",
    "memory": "e",
    "startup": "f",
    "roofline": "g",
    "products": "g",
    "generation": "h",
    "real_generation": "h",
    "images": "i",
    "carriers": "j",
    "people": "k",
}
LIMIT_S = {"cpu": 600, "cuda": 900}
"""After so long an entry is stopped and counts as failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the entries asked for; return 1 if one of them failed to run, whatever the figures."""
    given = _parser().parse_args(arguments)
    stem = RESULTS / (given.device + "_quick" * given.quick)
    if given.write_docs:
        write_docs(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8")), given.device)
        return 0
    chosen = _chosen(given.only)
    done = _kept(stem.with_suffix(".json"), chosen) if given.only else _nothing()
    start_s = time.monotonic()
    for name in chosen:
        _add(done, name, given.device, given.quick)
    order = list(ENTRIES)
    done["figures"].sort(key=lambda figure: order.index(figure["module"]))
    done |= {"device": given.device, "machine": done["machine"] | machine(given.device)}
    _write(stem, done)
    print("\n" + markdown(done))
    print(f"{time.monotonic() - start_s:.0f} s; written to {stem.relative_to(ROOT)}.json, .md and .svg")
    return 1 if done["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="All benchmarks of fedloom.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default="", help=f"letters or names: {', '.join(ENTRIES)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write-docs", action="store_true")
    return parser


def _chosen(only: str) -> list[str]:
    asked = [word.strip() for word in only.split(",") if word.strip()]
    odd = sorted(set(asked) - set(ENTRIES) - set(ENTRIES.values()))
    if odd:
        raise SystemExit(f"--only: no benchmark called '{odd[0]}'. Known: a to k, {', '.join(ENTRIES)}.")
    return [name for name, letter in ENTRIES.items() if not asked or name in asked or letter in asked]


def _nothing() -> dict[str, Any]:
    return {"figures": [], "failed": {}, "seconds": {}, "machine": {}}


def _kept(path: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """Return earlier results without those of the entries that run again."""
    if not path.is_file():
        return _nothing()
    done = json.loads(path.read_text(encoding="utf-8"))
    done["figures"] = [figure for figure in done["figures"] if figure["module"] not in chosen]
    for kind in ("failed", "seconds"):
        done[kind] = {name: value for name, value in done[kind].items() if name not in chosen}
    return done


def _add(done: dict[str, Any], name: str, device: str, quick: bool) -> None:
    """Run one entry in a process of its own and add its figures, or why there are none."""
    print(f"\n{ENTRIES[name]}  {name}", flush=True)
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        error = _run(name, device, quick, out)
        if not error:
            figures = json.loads(out.read_text(encoding="utf-8"))
            done["figures"] += [{"module": name, **figure} for figure in figures]
            for figure in figures:
                print(figure_of(figure).lines(), flush=True)
        else:
            done["failed"][name] = error
            print(f"failed: {error}", flush=True)
    done["seconds"][name] = round(time.monotonic() - start_s, 1)


def _run(name: str, device: str, quick: bool, out: Path) -> str:
    """Return why the entry failed, or nothing."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--device", device, "--out", str(out)]
    process = subprocess.Popen(
        command + ["--quick"] * quick,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=LIMIT_S[device])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # with what it started: Ray leaves its servers behind
        process.communicate()
        return f"stopped after {LIMIT_S[device]} s"
    if process.returncode:
        lines = [line for line in errors.strip().splitlines() if line.strip()]
        return lines[-1] if lines else f"ended with {process.returncode}"
    return ""


def _write(stem: Path, done: dict[str, Any]) -> None:
    write_atomic(stem.with_suffix(".json"), json.dumps(done, indent=1, ensure_ascii=False) + "\n")
    write_atomic(stem.with_suffix(".md"), markdown(done))
    plot(done, stem.with_suffix(".svg"))


if __name__ == "__main__":
    sys.exit(main())
