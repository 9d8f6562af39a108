"""What a client costs in a round, and what a server of 10^3, 10^4 and 10^5 simulated clients needs: measured, planned.

    python -m benchmarks.scale [--out benchmarks/results/scale] [--quick] [--write-docs]

Each case is a process of its own, so that its peak is nobody else's. Writes DIR/scale.json and DIR/scale.md;
`--write-docs` puts table and plan of what was measured before into docs/scale.md, and measures nothing. Cases on
Ray run where it is installed; `make scale` installs it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from benchmarks._common import RESULTS, ROOT, environment
from benchmarks._report import machine, write_atomic
from benchmarks.scale._cases import FULL, QUICK, Case, Measured, measured
from benchmarks.scale._plan import costs_of, markdown, row

__all__ = ["main"]

DOCS = ROOT / "docs" / "scale.md"


def in_own_process(case: Case) -> Measured:
    """Return what a case takes in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scale", "--case", case.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
    if done.returncode:
        raise SystemExit(f"{case.name}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def write_docs(text: str) -> None:
    """Put the text between the marks of docs/scale.md."""
    begin_mark, end_mark = "<!-- begin scale -->\n", "<!-- end scale -->"
    head, found, rest = DOCS.read_text(encoding="utf-8").partition(begin_mark)
    _, ended, tail = rest.partition(end_mark)
    if not found or not ended:
        raise SystemExit(f"{DOCS.name}: no marks '{begin_mark.strip()}' and '{end_mark}' to write between.")
    write_atomic(DOCS, f"{head}{begin_mark}\n{text}\n{end_mark}{tail}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cases, or one of them for the process that asks."""
    parser = argparse.ArgumentParser(description="Cost of simulated clients, and a plan for a million.")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it runs")
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.case:
        engine, *numbers = given.case.split(":")
        print(json.dumps(asdict(measured(Case(*map(int, numbers), engine)))))
        return 0
    if given.write_docs:
        write_docs(markdown(json.loads((given.out / "scale.json").read_text(encoding="utf-8"))))
        return 0
    start_s, cases = time.monotonic(), list[Measured]()
    for case in QUICK if given.quick else FULL:
        if case.engine != "ray" or find_spec("ray"):
            cases.append(in_own_process(case))
            print(", ".join(row(cases[-1])), flush=True)
    wall_s = round(time.monotonic() - start_s, 1)
    costs = asdict(costs_of(cases))
    done = {"cases": [asdict(case) for case in cases], "costs": costs, "machine": machine("cpu"), "wall_s": wall_s}
    write_atomic(given.out / "scale.json", json.dumps(done, indent=1) + "\n")
    write_atomic(given.out / "scale.md", markdown(done))
    print("\n" + markdown(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
