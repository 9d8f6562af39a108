"""What attacks have found in the run of each seed, put together with intervals."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.evaluation.statistics import ScoreTable, bootstrap, drawn_interval
from fedloom.runs.audit_bounds import Estimate, Membership, membership, separations
from fedloom.runs.leakage.attacks import chance_exposure
from fedloom.runs.leakage.looking import CANDIDATES
from fedloom.runs.leakage.secrets import REFERENCES

__all__ = ["LONG", "Found", "Reconstructed", "of_seeds"]

Array = NDArray[np.float64]

_PROMPT = re.compile(r"prompt \w+ to")
_FALSE_POSITIVES = 0.01  # of the others may be taken for members

LONG = 8
"""Words beyond which a pair counts as copied from its document."""


@dataclass(frozen=True)
class Reconstructed:
    """Whether the true entity of each sentence came first, by the final model and by the base."""

    kind: str
    planted: bool
    final: Sequence[float]
    base: Sequence[float]


@dataclass(frozen=True)
class Found:
    """What one seed's run gave away."""

    seed: int
    repeats: Sequence[int]
    """Of each canary, how often it was planted."""
    bits: Sequence[float]
    reached: Sequence[int]
    """In how many examples that were trained on each canary stands."""
    verbatim: Mapping[str, Sequence[float]]
    reconstructed: Sequence[Reconstructed]
    scores: Mapping[str, tuple[Array, Array]]
    """Of members and of others, by attack."""
    overlaps: Sequence[int]
    ledger: Sequence[Mapping[str, Any]] = ()
    privacy: Mapping[str, Any] | None = None


def of_seeds(found: Sequence[Found], resamples: int) -> dict[str, Any]:
    """Return the report as JSON values, every share and mean with its 95 % interval."""
    first, seeds = found[0], [one.seed for one in found]

    def mean(parts: Iterable[Sequence[float]]) -> dict[str, Any]:
        return _mean(dict(zip(seeds, parts, strict=True)), resamples)

    def of_repeats(values: str, times: int) -> dict[str, Any]:
        return mean(
            [value for value, own in zip(vars(one)[values], one.repeats, strict=True) if own == times] for one in found
        )

    return {
        "privacy": max((one.privacy for one in found if one.privacy), key=_epsilon, default=None),
        "exposure": {
            "chance_bits": chance_exposure(REFERENCES),
            "most_bits": math.log2(REFERENCES + 1),
            "by_repeats": [
                {"repeats": times, "bits": of_repeats("bits", times), "in_examples": of_repeats("reached", times)}
                for times in sorted({*first.repeats})
            ],
        },
        "membership": [
            {"by": name} | asdict(_membership([one.scores[name] for one in found], resamples)) for name in first.scores
        ],
        "verbatim": [
            {"of": name, "share": mean(one.verbatim[name] for one in found)}
            for name in first.verbatim
            if all(one.verbatim[name] for one in found)
        ],
        "reconstruction": [
            {"kind": row.kind, "planted": row.planted, "chance": 1 / CANDIDATES}
            | {side: mean(vars(one.reconstructed[at])[side] for one in found) for side in ("final", "base")}
            for at, row in enumerate(first.reconstructed)
        ],
        "pairs": _pairs({one.seed: one.overlaps for one in found}, resamples),
        "ledger": _departures(found),
    }


def _mean(values: Mapping[int, Sequence[float]], resamples: int) -> dict[str, Any]:
    """Return the mean of all seeds' values with its interval; seeds are drawn first where there are several."""
    all_N = [value for own in values.values() for value in own]
    seeds = tuple(str(seed) for seed, own in values.items() for _ in own)
    table = ScoreTable(np.array([all_N], dtype=np.float64), np.ones((1, len(all_N))), seeds)
    told = bootstrap(table, resamples=resamples).record("value", "low", "high", "n")
    return told | {"low": max(told["low"], 0.0)}  # nothing here is below 0 but by rounding


def _membership(parts: Sequence[tuple[Array, Array]], resamples: int) -> Membership:
    """Return how well scores tell members: the mean over the seeds' models, whose scores are of scales of their own.

    With several seeds, seeds are drawn first, then members and others of each draw of a seed, and the interval is as
    much wider as Student's is for so few seeds.
    """
    if len(parts) == 1:
        return membership(*parts[0], false_positive_rate=_FALSE_POSITIVES, resamples=resamples)
    random = rng.numpy_random("membership of seeds")
    chosen_RS = random.integers(len(parts), size=(max(2, resamples), len(parts)))
    values: list[tuple[float, ...]] = []
    drawn_2RS = np.empty((2, *chosen_RS.shape))
    for k, part in enumerate(parts):
        found = separations(*part, _FALSE_POSITIVES, int((chosen_RS == k).sum()), random)
        values.append(tuple(float(found_R[0]) for found_R in found))
        drawn_2RS[:, chosen_RS == k] = np.stack(found)[:, 1:]
    auc, rate = (
        _estimate(float(np.mean(own)), draws_RS.mean(axis=1), len(parts))
        for own, draws_RS in zip(zip(*values, strict=True), drawn_2RS, strict=True)
    )
    n_members, n_others = (sum(len(part[side]) for part in parts) for side in (0, 1))
    return Membership(auc, rate, _FALSE_POSITIVES, n_members, n_others)


def _estimate(value: float, draws_R: Array, n_units: int) -> Estimate:
    told = drawn_interval(value, draws_R, n_units)
    return Estimate(told.value, told.low, told.high)


def _epsilon(privacy: Mapping[str, Any]) -> float:
    return next(iter(privacy["epsilon"].values()))


def _pairs(overlaps: Mapping[int, Sequence[int]], resamples: int) -> dict[str, Any] | None:
    """Return the longest runs of words that pairs share with their documents; None where there are no pairs."""
    kept = {seed: own for seed, own in overlaps.items() if own}
    if not kept:
        return None
    long = {seed: [float(words > LONG) for words in own] for seed, own in kept.items()}
    return {
        "mean_words": _mean(kept, resamples),
        "most_words": max(map(max, kept.values())),
        f"over_{LONG}_words": _mean(long, resamples),
    }


def _departures(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return what left clients and server by kind: how often, from how many clients, and bytes, over all seeds.

    What left the server has no clients; of what stayed there nothing is said.
    """
    rows: dict[tuple[bool, str], dict[str, Any]] = {}
    for line in (line for one in found for line in one.ledger if "what" in line):
        at_server = not line["client"]
        if at_server and not line.get("bytes"):
            continue
        what = _PROMPT.sub("prompts to", line["what"])  # each has a line of its own
        row = rows.setdefault((at_server, what), {"what": what, "times": 0, "bytes": 0, "clients": set[str]()})
        row["times"] += 1
        row["bytes"] += line.get("bytes", 0)
        row["clients"] |= {line["client"]} - {""}
    return [row | {"clients": len(row["clients"])} for row in rows.values()]
