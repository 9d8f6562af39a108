"""What federation keeps of what pooling gains on the visual hull, of the runs of experiments/suites/people.toml.

    python tools/people_gain.py runs/people/suite

For each arm the distance to the truth in both directions beside the hull's, and the gain; then the share of the pooled
gain that the others keep. Intervals are those of the package over seeds drawn anew, and people within them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedloom.base import rng
from fedloom.evaluation.statistics import drawn_interval

ARMS = ("local", "federated", "centralised")
SCORES = ("hull_chamfer_cm", "chamfer_cm", "hull_acc_cm", "acc_cm", "hull_comp_cm", "comp_cm", "floor_cm", "gain_cm")
DRAWS = 4000


def scores_of(folder: Path) -> dict[str, dict[str, float]]:
    """Return the mean over models of each score by person, of the final evaluation of a run."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["phase"] != "final" or record["set"] != "test":
            continue
        own = found.setdefault(record["tags"]["person"], {})
        for name in SCORES:
            total, weight = record["scores"][name]
            own.setdefault(name, []).append(total / weight)
    return {person: {name: float(np.mean(values)) for name, values in own.items()} for person, own in found.items()}


def main(folder: Path) -> None:
    """Print the table."""
    seeds = sorted(int(run.name.rpartition("_s")[2]) for run in folder.glob("*/centralised_s*"))
    runs = {(arm, seed): scores_of(next(folder.glob(f"*/{arm}_s{seed}"))) for arm in ARMS for seed in seeds}
    drawn = rng.numpy_random("people", "gain")
    choices = [_choice(drawn, runs, seeds) for _ in range(DRAWS)]
    print(f"{len(seeds)} seeds, {sum(len(runs['local', seed]) for seed in seeds)} people of studios that took no part")
    for arm in ARMS:
        told = {
            name: float(np.mean([one[name] for seed in seeds for one in runs[arm, seed].values()])) for name in SCORES
        }
        gain = drawn_interval(told["gain_cm"], np.array([_mean(runs, arm, one) for one in choices]), len(seeds))
        print(
            f"{arm}: Chamfer {told['chamfer_cm']:.3f} cm (hull {told['hull_chamfer_cm']:.3f}), surface to truth "
            f"{told['acc_cm']:.3f} ({told['hull_acc_cm']:.3f}), truth to surface {told['comp_cm']:.3f} "
            f"({told['hull_comp_cm']:.3f}), floor {told['floor_cm']:.3f}; gain {gain:.3f}"
        )
    for arm in ARMS[:2]:
        shares = np.array([_mean(runs, arm, one) / _mean(runs, "centralised", one) for one in choices])
        whole = [(seed, person) for seed in seeds for person in runs["local", seed]]
        share = _mean(runs, arm, whole) / _mean(runs, "centralised", whole)
        print(f"{arm} keeps {drawn_interval(share, shares, len(seeds)):.3f} of what pooling gains")


def _choice(
    drawn: np.random.Generator, runs: Mapping[tuple[str, int], Mapping[str, object]], seeds: Sequence[int]
) -> list[tuple[int, str]]:
    chosen: list[tuple[int, str]] = []
    for seed in drawn.choice(seeds, len(seeds)).tolist():
        people = sorted(runs["local", seed])
        chosen += [(seed, str(person)) for person in drawn.choice(people, len(people))]
    return chosen


def _mean(
    runs: Mapping[tuple[str, int], Mapping[str, Mapping[str, float]]], arm: str, choice: Sequence[tuple[int, str]]
) -> float:
    return float(np.mean([runs[arm, seed][person]["gain_cm"] for seed, person in choice]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
