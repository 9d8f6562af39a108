"""One client's training in one round: the step that every engine shares.

The trainable numbers lie in one row: shared parameters first, private ones behind. The model sees views of that row,
so a step of the optimiser is a handful of operations on one vector however many layers there are, and nothing is
allocated from round to round.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedloom import rng
from fedloom.contracts import Encoded, Job, Local, Report, Shard, Work
from fedloom.errors import TrainingError
from fedloom.mean import Mean
from fedloom.optimisers import Moments, advance
from fedloom.settings import LocalSettings
from fedloom.tree import Layout, Slots, Tree, flatten

__all__ = ["Workspace", "batches", "learning_rate", "train_client"]


def learning_rate(settings: LocalSettings, *, round: int, rounds: int) -> float:
    """Return the learning rate of a round: lr_final + (lr - lr_final) (1 + cos(pi t / T)) / 2."""
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr_final + 0.5 * (settings.lr - settings.lr_final) * (1 + math.cos(math.pi * round / rounds))


def batches(n_examples: int, settings: LocalSettings, *names: str | int) -> Iterator[list[list[int]]]:
    """Yield, step by step, the micro-batches of indices: whole shuffles one after another, seeded by the names."""
    random = rng.python_random("batches", *names)
    order: list[int] = []
    for _ in range(settings.steps):
        step: list[list[int]] = []
        for _ in range(settings.accumulation):
            while len(order) < settings.batch:
                order += random.sample(range(n_examples), n_examples)
            step.append(order[: settings.batch])
            order = order[settings.batch :]
        yield step


@dataclass(frozen=True)
class Workspace:
    """The buffers of one client in training, allocated once and used by one client after another."""

    row_P: Tensor
    leaves: Tree  # views of the row by parameter name: what the model sees
    moments: Moments
    n_shared: int

    @classmethod
    def of(cls, work: Work) -> "Workspace":
        """Return buffers for the work's parameters on the model's device."""
        layout = Layout(work.layout.entries + Layout.of_tree(work.private).entries)
        row_P = torch.zeros(layout.size, device=work.model.device)
        leaves = {name: view.requires_grad_() for name, view in layout.tree(row_P).items()}
        return cls(row_P, leaves, Moments.like(row_P, work.local), work.layout.size)

    @property
    def shared_P(self) -> Tensor:
        """The shared part of the row, as a view."""
        return self.row_P[: self.n_shared]

    def load(self, anchor_P: Tensor, private_P: Tensor, saved: Tree | None) -> None:
        """Put one client's parameters and its optimiser in place."""
        self.shared_P.copy_(anchor_P)
        self.row_P[self.n_shared :].copy_(private_P)
        self.moments.load(saved)


def train_client(work: Work, job: Job, space: Workspace) -> Report:
    """Return what a client sends back after its local steps of one round.

    Raises TrainingError, naming client, round and step, if a loss is not finite.
    """
    shard, local = work.shards[job.client], _on_device(job.local, work.model.device)
    job = replace(job, local=local)
    space.load(job.local.anchor[""], _private_row(work, job.local.memory), job.local.memory.get("optimiser"))
    work.model.draws.generator = rng.generator(work.seed, "dropout", job.round, job.client, device=work.model.device)
    try:
        loss = Mean()
        for step in batches(len(shard.items), work.local, work.seed, job.round, job.client):
            loss += _step(work, job, space, shard, step)
    finally:
        work.model.draws.generator = None
    if not bool(torch.isfinite(space.row_P).all()):
        raise TrainingError(f"client '{job.client}', round {job.round}: parameters are not finite; lower local.lr.")
    upload, memory = work.rule.finish({"": space.shared_P}, job.local, steps=work.local.steps, lr=job.lr)
    layout = Layout.of(upload)
    seen = work.local.steps * work.local.accumulation * work.local.batch
    return Report(
        client=job.client,
        row_P=layout.row(upload).cpu(),
        layout=layout,
        weight=_weight(work, shard, seen),
        n_examples=len(shard.items),
        samples_seen=seen,
        loss=loss,
        memory=_slots_on(memory | _own_memory(work, space), torch.device("cpu")),
    )


def _step(work: Work, job: Job, space: Workspace, shard: Shard, step: Sequence[Sequence[int]]) -> Mean:
    """Take one optimiser step: sum over the micro-batches, divide once by what was supervised in all of them."""
    items = [[shard.items[index] for index in micro] for micro in step]
    weight = sum(int(item.supervised_T.sum()) for micro in items for item in micro)
    if weight == 0:
        raise TrainingError(f"client '{job.client}', round {job.round}: a batch has no supervised token.")
    grad_P, loss = _gradient(work, space, items, weight)
    if not math.isfinite(loss.total):
        raise TrainingError(
            f"client '{job.client}', round {job.round}, step {space.moments.steps}: the loss is {loss.total}; "
            "allowed is a finite loss; lower local.lr or look for broken records."
        )
    with torch.no_grad():
        grad_P[: space.n_shared] = work.rule.correct({"": grad_P[: space.n_shared]}, {"": space.shared_P}, job.local)[
            ""
        ]
        _clip(grad_P, work.local.clip_norm)
        advance(space.row_P, grad_P, space.moments, work.local, lr=job.lr)
        space.shared_P.copy_(work.rule.adjust({"": space.shared_P}, job.local, lr=job.lr)[""])
    return loss


def _gradient(work: Work, space: Workspace, items: Sequence[Sequence[Encoded]], weight: int) -> tuple[Tensor, Mean]:
    total_P, loss = torch.zeros(0), Mean()
    for index, micro in enumerate(items):
        losses = work.task.loss(work.model, space.leaves, work.task.collate(micro, work.model))
        loss += losses.mean
        grads = torch.autograd.grad(losses.total_B.sum() / weight, list(space.leaves.values()))
        grad_P = torch.cat([grad.reshape(-1) for grad in grads])
        total_P = total_P.add_(grad_P) if index else grad_P
    return total_P, loss


def _clip(grad_P: Tensor, clip_norm: float) -> None:
    """Scale the gradient down to the norm `clip_norm`, as torch.nn.utils.clip_grad_norm_ does; 0 leaves it alone."""
    if clip_norm:
        grad_P.mul_(torch.clamp(clip_norm / (grad_P.norm() + 1e-6), max=1.0))


def _weight(work: Work, shard: Shard, seen: int) -> float:
    used = min(seen, len(shard.items))
    weights = {"samples": len(shard.items), "used_samples": used, "tokens": shard.supervised_tokens, "uniform": 1}
    return float(weights[work.weighting])


def _on_device(local: Local, device: torch.device) -> Local:
    """Return what the client knows on its device; states and memories rest on the CPU."""
    anchor = {name: tensor.to(device) for name, tensor in local.anchor.items()}
    return Local(anchor, _slots_on(local.shared, device), _slots_on(local.memory, device))


def _slots_on(slots: Slots, device: torch.device) -> Slots:
    return {slot: {name: tensor.to(device) for name, tensor in tree.items()} for slot, tree in slots.items()}


def _private_row(work: Work, memory: Slots) -> Tensor:
    if "private" in memory:
        return memory["private"][""]
    return flatten(work.private) if work.private else torch.zeros(0)


def _own_memory(work: Work, space: Workspace) -> Slots:
    own: Slots = {}
    if work.private:
        own["private"] = {"": space.row_P[space.n_shared :].clone()}
    if work.local.optimiser_state == "kept":
        own["optimiser"] = space.moments.saved()
    return own
