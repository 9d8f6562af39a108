"""Entry a, Flower: a simulated federation on Flower's own backend (Ray) with the client code of OpenFedLLM.

    python -m benchmarks.flower [--device cuda] [--quick]

The rounds of Flower and of fedloom alternate within Flower's server process. One client trains at a time, on one
thread, as on all other sides; what Ray and the workers take to start is printed apart.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks._common import Figure, Sample, Settings, entry, ratio
from benchmarks._ours import Rounds, table_of
from benchmarks._shapes import EMBEDDED, LARGE, TINY, Shape

__all__ = ["main"]


def main(settings: Settings) -> list[Figure]:
    """Compare a round with a Flower simulation."""
    shapes = (replace(TINY, steps=2),) if settings.quick else (EMBEDDED, LARGE)
    figures: list[Figure] = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            figures.append(_compare(shape, Path(folder), settings))
    return figures


def _compare(shape: Shape, folder: Path, settings: Settings) -> Figure:
    from flwr.simulation import run_simulation

    from benchmarks._flower_app import Clock, client_app, server_app

    ours = Rounds(table_of(shape, folder, settings, engine={"name": "cohort"}))
    clock = Clock()
    server = server_app(shape, folder, settings, rounds=settings.repeats(3), clock=clock, ours=ours)
    resources = {"num_cpus": 1, "num_gpus": 1.0 if settings.device == "cuda" else 0.0}
    run_simulation(
        server,
        client_app(shape, folder, settings),
        num_supernodes=shape.clients,
        backend_config={
            "client_resources": resources,
            "init_args": {"num_cpus": 1, "include_dashboard": False},
        },
    )
    if clock.supervised_tokens != ours.supervised_tokens:
        raise RuntimeError(f"Flower learnt from {clock.supervised_tokens} tokens, fedloom {ours.supervised_tokens}")
    per_step = 1000 / (shape.clients * shape.steps)
    return ratio(
        "a",
        f"round, {shape.name} model: Flower simulation (Ray) with trl clients over fedloom cohort",
        ours=Sample(tuple(clock.ours_s)).scaled(per_step, "ms per client step"),
        other=Sample(tuple(clock.theirs_s)).scaled(per_step, "ms per client step"),
        work={
            "supervised tokens": clock.supervised_tokens,
            "clients": shape.clients,
            "steps": shape.steps,
            "batch": shape.batch,
            "Flower's start and first round": f"{clock.first_round_s:.1f} s",
        },
    )


if __name__ == "__main__":
    entry(main)
