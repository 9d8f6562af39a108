"""A fedloom run whose rounds can be called one by one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import Settings
from benchmarks._shapes import Shape, base_folder, write_data
from fedloom.base.tree import Tree
from fedloom.federated.rounds import RoundRecord, begin, step
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run

__all__ = ["Rounds", "table_of"]

RATE = 1e-3


def table_of(shape: Shape, folder: Path, settings: Settings, **changes: Any) -> dict[str, Any]:
    """Return the run file of a shape as a table; `changes` replace whole entries."""
    model = {
        "name": "causal_lm",
        "path": str(base_folder(shape, folder, device=settings.device)) if shape.width else "",
        "lora_rank": shape.rank,
        "lora_alpha": 2.0 * shape.rank,
        "lora_targets": list(shape.targets),
        # What a user gets without asking; on the CPU the trainers beside it are published in float32.
        "dtype": "auto" if settings.device == "cuda" or shape.dtype == "bfloat16" else "float32",
    }
    data = {"name": "file", "path": str(write_data(shape, folder)), "form": "alpaca", "tags": {"client": "owner"}}
    table = {
        "rounds": 1000,
        "device": settings.device,
        "model": model,
        "task": {"name": "sft", "max_length": 512},
        "data": data,
        "local": {"lr": RATE, "steps": shape.steps, "batch": shape.batch, "schedule": "constant"},
        "evaluation": {"holdout": 0.0},
    }
    return table | changes


class Rounds:
    """Rounds of a run, one after another; `supervised_tokens` is what the last one learnt from."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        ready = prepare(read_run(table))
        self.ready = ready
        self.work = ready.stages[0].work
        self.plan = self.work.plan
        self.engine = ready.run.engine.resolved(self.work, n_clients=self.plan.clients_per_round)
        self._carrier = self.engine.start(self.work)
        self._state = begin(self.plan, ready.layout.row({"": ready.shared}))
        self.record: RoundRecord | None = None

    def __call__(self) -> RoundRecord:
        """Run one more round."""
        self._state, self.record = step(self.plan, self._state, self._carrier)
        return self.record

    @property
    def params(self) -> Tree:
        """What is trained, after the last round."""
        return self.ready.layout.tree(self._state.params_P)

    @property
    def examples(self) -> int:
        """Examples that the last round trained on, repetitions counted."""
        return sum(client.samples_seen for client in self.record.clients) if self.record else 0

    @property
    def supervised_tokens(self) -> int:
        """Tokens that the last round learnt from, repetitions counted."""
        return int(self.record.loss.weight) if self.record else 0

    @property
    def padding(self) -> float:
        """Share of padding in the batch of every client's first examples, packed as the engine packs them."""
        parts = [shard.items[: self.plan.local.batch] for shard in self.work.shards.values()]
        real = sum(self.work.task.size(item) for part in parts for item in part)
        return 1 - real / self.work.task.collate(parts, self.work.model).tokens_N.numel()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights."""
        return next(self.work.model.module.parameters()).dtype
