"""A table that several owners hold, a folder for each seed: rows that are public, tested with and owned.

    python tools/tables.py --out runs/fedgc/data --seeds 10

The table is that of 569 breast tumours that scikit-learn ships (Street et al., 1993, UCI, CC BY 4.0): 30 measures of
cell nuclei, benign or malignant. Measures are told by how far they lie from the mean of the public rows, in their
standard deviations: what is public alone decides about it.

    OUT/SEED/public.csv    rows that nobody owns
    OUT/SEED/test.csv      rows of the common test
    OUT/SEED/train.csv     rows that are dealt to clients
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedloom.base import rng
from fedloom.base.extras import library
from fedloom.base.files import write_atomic

PUBLIC, TEST = 100, 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args(arguments)
    found = library("sklearn.datasets", "tools/tables.py").load_breast_cancer()
    labels = [str(found.target_names[place]) for place in found.target]
    for seed in range(asked.seeds):
        folder = asked.out / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in split(found.data, labels, list(found.feature_names), seed).items():
            write_atomic(folder / f"{name}.csv", text)
    print(f"{asked.out}: {asked.seeds} divisions of {len(labels)} rows")
    return 0


def split(values_ND: np.ndarray, labels: Sequence[str], columns: Sequence[str], seed: int) -> dict[str, str]:
    """Return the CSV text of each part of a division that the seed draws."""
    order = rng.numpy_random("tables", seed).permutation(len(labels))
    public = order[:PUBLIC]
    scaled_ND = (values_ND - values_ND[public].mean(0)) / values_ND[public].std(0)
    head = ",".join([name.replace(" ", "_") for name in columns] + ["label"])
    parts = {"public": public, "test": order[PUBLIC : PUBLIC + TEST], "train": order[PUBLIC + TEST :]}
    return {
        name: "\n".join([head, *(_line(scaled_ND[at], labels[at]) for at in chosen)]) + "\n"
        for name, chosen in parts.items()
    }


def _line(values_D: np.ndarray, label: str) -> str:
    return ",".join([*(f"{value:.6g}" for value in values_D), label])


if __name__ == "__main__":
    raise SystemExit(main())
