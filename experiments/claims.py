"""The claims of the quickstart over several seeds: FedAvg against local-only and centralised training.

    python experiments/claims.py --out runs/claims [--seeds 5] [--override key=value ...]

Each seed draws its own private facts and clients. Killed at any moment and started again with the same words, it goes
on where it was: finished runs are kept, an unfinished one is resumed. Exit code 0: every claim holds; 1: one does not;
2: refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fedloom.api import load_run, resume, start
from fedloom.errors import FedloomError
from fedloom.outcomes import Asked
from fedloom.reports import Outcome, Table, compare, compare_table, difference, outcome
from fedloom.runs import RunDirectory
from fedloom.statistics import Interval

FILE = Path(__file__).with_name("quickstart.toml")
PROTOCOLS = {"federated": (), "local_only": (), "centralised": ("local.lr=5e-3",)}
"""The protocols, with what `make quickstart` changes for each: pooled training diverges at the rate of the others."""

LEAST_GAIN = 0.10  # of exact match, that FedAvg has to be above the mean of the local models
ASKED = "exact match on private facts in held-out wordings"
PRIVATE_FACTS = Asked("test", (("part", "private"),))


def run_one(out: Path, protocol: str, seed: int, overrides: Sequence[str]) -> Outcome:
    """Return what a run says, after running it or the rest of it."""
    folder = out / f"{protocol}_s{seed}"
    words = [*PROTOCOLS[protocol], *overrides, f"protocol={protocol}", f"seed={seed}", f"data.seed={seed}"]
    wanted = load_run(FILE, words)
    if (folder / "run.toml").is_file():
        _, events = resume(folder, expected=wanted)
    else:
        source = FILE.read_text(encoding="utf-8") + "".join(f"# override: {word}\n" for word in words)
        events = start(wanted, folder, source=source)
    for _ in events:
        pass
    return outcome(RunDirectory.open(folder))


def claim(what: str, gain: Interval, *, holds: bool) -> bool:
    """Print a claim with its interval."""
    print(f"{what}, {ASKED}: {gain:+.3f}: {'holds' if holds else 'does not hold'}", flush=True)
    return holds


def claims(runs: Sequence[Outcome]) -> bool:
    """Print the tables and the claims; return whether all hold."""
    compared = compare(runs)
    for table in compare_table(compared):
        print(plain_text(table), flush=True)
    facts = compare([run.part(PRIVATE_FACTS) for run in runs])
    federated, local, centralised = facts.labels
    over_local = difference(facts.pairs(federated, local), "exact_match")
    over_federated = difference(facts.pairs(centralised, federated), "exact_match")
    over_base = difference(facts.pairs(federated, federated), "exact_match", phases=("final", "base"))
    needed = f"needs an interval above 0 and at least {LEAST_GAIN:+.2f}"
    held = [
        claim(
            f"FedAvg minus mean local ({needed})",
            over_local,
            holds=over_local.low > 0 and over_local.value >= LEAST_GAIN,
        ),
        claim(
            "centralised minus FedAvg (needs an upper end of at least 0)",
            over_federated,
            holds=over_federated.high >= 0,
        ),
        claim("FedAvg minus base (needs an interval above 0)", over_base, holds=over_base.low > 0),
    ]
    return all(held)


def plain_text(table: Table) -> str:
    """Return a table with columns of even width."""
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["", table.title, *lines, ""])


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing, print the claims, return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run directories, made or gone on with")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, 0 upwards (default: 5)")
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="change the run file; may be repeated"
    )
    given = parser.parse_args(words)
    if given.seeds < 1:
        parser.error(f"--seeds: found {given.seeds}, allowed is 1 or more.")
    runs: list[Outcome] = []
    try:
        for seed in range(given.seeds):
            for protocol in PROTOCOLS:
                runs.append(run_one(given.out, protocol, seed, given.override))
                print(f"seed {seed}  {protocol:11}  {runs[-1].cost['wall_s']:8.1f} s  {runs[-1].path}", flush=True)
        return 0 if claims(runs) else 1
    except FedloomError as error:
        print(f"claims: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
