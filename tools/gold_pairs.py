"""Pairs that were made of documents beside the true ones: how many, how like, and some to be read by hand.

    python tools/gold_pairs.py FOLDER gold.jsonl [--show 10] [--seed 0]

FOLDER is what `fedloom synthesise` wrote, or a run's `prepared/0_pairs`: a folder for each client with its pairs.jsonl.
The gold file has a pair for each document (instruction, output, client), a client's in the order of its documents.
Printed are, over all pairs that parsed and over those that were kept, the mean F1 over words of instructions and
responses to the true ones, with intervals that draw clients; then the reasons, then pairs drawn by the seed from those
kept.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedloom.base import rng
from fedloom.evaluation.metrics.token_f1 import TokenF1
from fedloom.evaluation.statistics import drawn_interval

Row = Mapping[str, Any]
_DRAWS = 2000


def scored(folder: Path, gold: Sequence[Row]) -> list[dict[str, Any]]:
    """Return each candidate that parsed, with its F1 to the true pair of its document."""
    owned: dict[str, list[Row]] = {}
    for row in gold:
        owned.setdefault(row["client"], []).append(row)
    found: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*/pairs.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            true = owned[one["client"]][one["document"]]
            pairs = (("instruction", "instruction"), ("response", "output"))
            f1 = {name: TokenF1().score(one[name], true[other]) for name, other in pairs}
            found.append({**one, "f1": f1, "true": true})
    return found


def mean(rows: Sequence[Row], name: str, seed: int) -> str:
    """Return the mean F1 with an interval over clients, the ratio of sums being drawn."""
    clients = sorted({row["client"] for row in rows})
    sums = np.array([[_total(rows, client, name), _count(rows, client)] for client in clients])
    if not len(clients):
        return "none"
    drawn = rng.numpy_random(seed, "gold pairs").integers(len(clients), size=(_DRAWS, len(clients)))
    totals = sums[drawn].sum(axis=1)
    value = sums[:, 0].sum() / sums[:, 1].sum()
    return f"{drawn_interval(float(value), totals[:, 0] / totals[:, 1], len(clients)):.3f}"


def _total(rows: Sequence[Row], client: str, name: str) -> float:
    return sum(row["f1"][name] for row in rows if row["client"] == client)


def _count(rows: Sequence[Row], client: str) -> int:
    return sum(row["client"] == client for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("gold", type=Path)
    parser.add_argument("--show", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    gold = [json.loads(line) for line in given.gold.read_text(encoding="utf-8").splitlines()]
    rows = scored(given.folder, gold)
    parsed = [row for row in rows if row["instruction"]]
    kept = [row for row in rows if not row["reason"]]
    print_ = sys.stdout.write
    print_(f"{len(rows)} candidates, {len(parsed)} parsed, {len(kept)} kept\n")
    for what, part in (("parsed", parsed), ("kept", kept)):
        told = ", ".join(f"{name} {mean(part, name, given.seed)}" for name in ("instruction", "response"))
        print_(f"{what}: F1 of {told}\n")
    print_(", ".join(f"{n} {reason}" for reason, n in Counter(row["reason"] for row in rows if row["reason"]).items()))
    print_("\n")
    for row in rng.python_random(given.seed, "read by hand").sample(kept, min(given.show, len(kept))):
        print_(f"\n{row['client']}\n  made: {row['instruction']} -> {row['response']}\n")
        print_(f"  true: {row['true']['instruction']} -> {row['true']['output']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
