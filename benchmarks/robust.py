"""Entry d, robust aggregation: rules on the matrix of all rows, beside memcpy and beside Flower's own rules.

    python -m benchmarks.robust [--quick]

The N float32 rows of a round lie in one matrix, as the server gathers them; memcpy copies it to memory that was in use
before. Rows are checked for NaN, which is in the figures. Flower's functions are given the same rows as arrays, where
`flwr` is installed (`make bench`). One thread, on the CPU, where rows arrive, whatever the device. Memory is the peak
of a fresh process over what the matrix takes.
"""

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks._common import (
    Figure,
    Settings,
    Target,
    alternate,
    entry,
    forget_peak,
    in_fresh_process,
    peak_bytes,
    ratio,
    report,
)
from fedloom.base import rng
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Frame

__all__ = ["main"]

SIZES = ((10, 1_000_000), (50, 1_000_000), (200, 1_000_000), (10, 10_000_000), (50, 10_000_000), (200, 10_000_000))
QUICK = ((10, 50_000),)
BY_COLUMN = ("median", "trimmed_mean")
BY_GRAM = ("krum", "multi_krum", "geometric_median")
OTHERS = ("bulyan", "norm_clip")
LARGE = 1 << 31
"""Bytes of a matrix from which on the median and Krum stand for the others."""
SLOWER = {"median": 10.0, "trimmed_mean": 10.0} | dict.fromkeys(BY_GRAM, 7.0)
"""How many times as long as memcpy a rule may take."""
IN_MEMORY = (*BY_COLUMN, *BY_GRAM, *OTHERS, "dnc")
FLOWER = (("median", 50), ("trimmed_mean", 50), ("krum", 50), ("bulyan", 10))
"""Flower's Bulyan computes all distances anew for each row it chooses: minutes for 50 rows."""


def main(settings: Settings) -> list[Figure]:
    """Measure the rules against memcpy and Flower, and their memory."""
    if settings.part:
        return report({"share": _share_of_matrix(settings.part, settings)})
    figures = [figure for size in (QUICK if settings.quick else SIZES) for figure in _beside_memcpy(*size, settings)]
    if find_spec("flwr"):
        figures += [_beside_flower(name, n_rows, settings) for name, n_rows in FLOWER]
    return figures + [_memory(name, settings) for name in IN_MEMORY]


def _matrix(n_rows: int, size: int) -> torch.Tensor:
    return torch.empty(n_rows, size).uniform_(-1, 1, generator=rng.generator("rows", n_rows))


def _rule(name: str, rows_NP: torch.Tensor) -> Callable[[], object]:
    rule, n_rows = lookup(Aggregator, name)(), len(rows_NP)
    frame = Frame(Layout((("delta", "", (rows_NP.shape[1],)),)), torch.zeros(0))
    weight_N = torch.full((n_rows,), 1 / n_rows)
    return lambda: rule.aggregate(rows_NP, weight_N, frame)


def _free_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def _beside_memcpy(n_rows: int, size: int, settings: Settings) -> list[Figure]:
    n_bytes = 4 * n_rows * size
    if 2.2 * n_bytes > _free_bytes():  # the matrix and its copy
        return []
    rows_NP, copy_NP = _matrix(n_rows, size), torch.zeros(n_rows, size)
    names = ("median", "krum") if n_bytes > LARGE else (*BY_COLUMN, *BY_GRAM, *OTHERS)
    sides = {name: _rule(name, rows_NP) for name in names} | {"memcpy": lambda: copy_NP.copy_(rows_NP)}
    seconds = alternate(sides, repeats=settings.repeats(2 if n_bytes > LARGE else 5), settings=settings)
    return [
        ratio(
            "d",
            f"{name} of {n_rows} rows of {size:,} numbers over memcpy",
            ours=seconds[name],
            other=seconds["memcpy"],
            target=None if settings.quick or name not in SLOWER else Target(">=", 1 / SLOWER[name]),
            work={"bytes read": n_bytes},
        )
        for name in names
    ]


def _beside_flower(name: str, n_rows: int, settings: Settings) -> Figure:
    size = 20_000 if settings.quick else 1_000_000
    rows_NP = _matrix(n_rows, size)
    sides = {"ours": _rule(name, rows_NP), "flower": _flowers(name, rows_NP)}
    seconds = alternate(sides, repeats=settings.repeats(7), settings=settings)
    return ratio(
        "d",
        f"{name} of {n_rows} rows of {size:,} numbers over Flower's function",
        ours=seconds["ours"],
        other=seconds["flower"],
        target=Target(">=", 5) if name == "median" and not settings.quick else None,
        work={"bytes read": 4 * n_rows * size},
    )


def _flowers(name: str, rows_NP: torch.Tensor) -> Callable[[], object]:
    from flwr.server.strategy import aggregate as flower

    def results() -> list[Any]:
        return [([row_P.numpy()], 1) for row_P in rows_NP]

    return {
        "median": lambda: flower.aggregate_median(results()),
        "trimmed_mean": lambda: flower.aggregate_trimmed_avg(results(), 1.0 / len(rows_NP)),
        "krum": lambda: flower.aggregate_krum(results(), 1, 0),
        "bulyan": lambda: flower.aggregate_bulyan(results(), 1, flower.aggregate_krum, to_keep=0),
    }[name]


def _share_of_matrix(name: str, settings: Settings) -> float:
    rows_NP = _matrix(10 if settings.quick else 50, 100_000 if settings.quick else 2_000_000)
    run = _rule(name, rows_NP[:, :4096].contiguous())
    run()  # what libraries allocate once is not the rule's
    before = forget_peak(settings)
    _rule(name, rows_NP)()
    return 1 + (peak_bytes(settings) - before) / rows_NP.nbytes


def _memory(name: str, settings: Settings) -> Figure:
    share = float(in_fresh_process("benchmarks.robust", name, settings)["share"])
    target = None if settings.quick else Target("<=", 1.2)
    what = f"memory of {name}, the matrix and all besides, over the matrix"
    return Figure(entry="d", what=what, value=math.ceil(share * 1000) / 1000, target=target)


if __name__ == "__main__":
    entry(main)
