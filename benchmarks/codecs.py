"""Update codecs: bytes on the wire, what is lost, and how fast a row becomes a packet and comes back.

    python -m benchmarks.codecs [--quick]

The row is drawn like an update of low-rank factors: normal numbers whose scale differs from tensor to tensor by a
hundred times. What a codec costs in accuracy takes a training run: the quickstart's task, a few rounds, the loss on
questions about private facts, beside that of float32.
"""

import torch

from benchmarks._common import Figure, Sample, Settings, alternate, entry
from fedloom.base import rng
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Codec
from fedloom.evaluation.held_out import Examinee, evaluate
from fedloom.federated.rounds import begin, step
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run

__all__ = ["main"]

CODECS = ("float32", "bfloat16", "int8", "int4", "top_k")
TENSOR = 16_384


def main(settings: Settings) -> list[Figure]:
    """Measure every codec on one row."""
    row_P = _row(100_000 if settings.quick else 5_000_000)
    losses = {name: _loss(name, rounds=1 if settings.quick else 6) for name in CODECS}
    costs = [
        Figure(
            entry="codecs",
            what=f"{name}: loss on private facts after a few rounds, over that with float32",
            value=loss / losses["float32"],
            work={"loss": loss},
        )
        for name, loss in losses.items()
    ]
    return [figure for name in CODECS for figure in _codec(name, row_P, settings)] + costs


def _loss(codec: str, *, rounds: int) -> float:
    """Return the loss per token of held-out questions on private facts after federated training."""
    table = {"rounds": rounds, "codec": {"name": codec}, "local": {"lr": 2e-2, "steps": 2, "batch": 16}}
    ready = prepare(read_run(table))
    work = ready.stages[0].work
    plan = work.plan
    carrier = ready.run.engine.resolved(work, n_clients=plan.clients_per_round).start(work)
    state = begin(plan, ready.layout.row({"": ready.shared}))
    for _ in range(rounds):
        state, _ = step(plan, state, carrier)
    examinee = Examinee("", ready.layout.tree(state.params_P), ready.held[0])
    (scored,) = evaluate(ready.model, ready.run.task, [examinee], metrics={}, max_new_tokens=1)
    return sum((one.scores["loss"] for one in scored), Mean()).value


def _row(size: int) -> torch.Tensor:
    draws = rng.generator("codec row")
    scale_M = 10 ** torch.empty(-(-size // TENSOR)).uniform_(-4, -2, generator=draws)
    return torch.randn(size, generator=draws) * scale_M.repeat_interleave(TENSOR)[:size]


def _codec(name: str, row_P: torch.Tensor, settings: Settings) -> list[Figure]:
    codec = lookup(Codec, name)()
    packet = codec.encode(row_P)
    found_P = codec.decode(packet, len(row_P))
    lost = float((found_P - row_P).norm() / row_P.norm())
    seconds = alternate(
        {"encode": lambda: codec.encode(row_P), "decode": lambda: codec.decode(packet, len(row_P))},
        repeats=settings.repeats(7),
        settings=settings,
    )
    work = {"numbers": len(row_P), "bytes": packet.numel(), "relative error": lost}
    rates = {side: _rate(sample, row_P.nbytes) for side, sample in seconds.items()}
    size = Figure(
        entry="codecs",
        what=f"{name}: bytes of a float32 row over its packet's",
        value=row_P.nbytes / packet.numel(),
        work=work,
    )
    speeds = [
        Figure(entry="codecs", what=f"{name}: {side}", value=rate.median, unit="GB/s", ours=rate)
        for side, rate in rates.items()
    ]
    return [size, *speeds]


def _rate(sample: Sample, n_bytes: int) -> Sample:
    return Sample(tuple(n_bytes / 1e9 / value for value in sample.values), "GB/s")


if __name__ == "__main__":
    entry(main)
