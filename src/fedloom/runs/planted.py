"""Canaries in gradient space: contributions that are as large as any can be, each in a direction that nothing else has.

The trained parameters get one number more for each canary. A canary is a record whose loss is, besides that of some
real example, a steep linear function of its number: its gradient is a multiple of one unit vector, of a norm far above
every clip. It passes the model, the kernels, the clip, the sum, the noise and the engine as any other record does, and
what a release holds of it can be read off one coordinate (Nasr et al. 2021, https://arxiv.org/abs/2101.04535, call it a
Dirac gradient). The sign alternates from use to use, as a contributor may choose it: noise that is used again cancels.

Which canaries join is tossed by fair coins. With privacy of examples they join a client's examples; with privacy of
clients each is a client of its own, in the place of the real ones; where a client protects its own row, each takes
part, and its coin decides whether it sends the row or its opposite, since there the guarantee is about replacing a row.

Deviations: the canaries' directions are orthogonal to the data, so that a fault which shows only where contributions
oppose each other (clipping the sum of a batch) is seen by its effect on them alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout, Tree, flatten
from fedloom.contracts.federated import (
    Aggregator,
    Batch,
    Codec,
    Engine,
    Item,
    LossSum,
    Mechanism,
    Noise,
    PrivacyBudget,
    Rule,
    ServerOpt,
    Shard,
    Task,
    Work,
)
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.privacy import Unit
from fedloom.federated.rounds import begin, train
from fedloom.runs.audit_bounds import Shape

__all__ = ["Target", "Trials", "trials"]

_NAME = "canaries"
_STEEP = 1e6  # norm of a canary's gradient: far above any clip, and harmless in float32
_LR = 1e-3  # of the clients that are canaries; their rows are clipped anyway
_NO_NOISE = 1e-30


@dataclass(frozen=True)
class Target:
    """What is audited: a training, and the budgets that clients of given sizes get."""

    work: Work
    budgets: Callable[[Mapping[str, int]], Mapping[str, PrivacyBudget]]
    noise: float = 1.0
    """What the noise is multiplied by, for comparison: with less than 1 nothing that is stated holds."""


@dataclass(frozen=True)
class Trials:
    """The scores of M canaries: by how many standard deviations of the noise their coordinate lies off zero."""

    score_M: NDArray[np.float64]
    included_M: NDArray[np.bool_]
    """The coins: whether a canary joined, or sent its row and not the opposite."""
    budget: PrivacyBudget
    """Of the owner with the largest epsilon, as it is stated."""
    uses: int
    """Uses of the mechanism on that owner's data."""
    stated: float
    """The epsilon of that owner."""
    delta: float
    """The largest delta of any owner."""
    shapes: Mapping[Shape, int]
    """How the scores of so many canaries would lie if the mechanism did what it says, whatever the coins."""


def trials(target: Target, *, n_canaries: int, seed: int) -> Trials:
    """Return the trials of one whole training with canaries planted, the coins and all else drawn from the seed."""
    unit, random = target.work.plan.mechanism.covers(), rng.python_random("canaries", seed)
    if not unit.private:
        raise ConfigError("audit: the run has no privacy, whose releases could be audited.")
    if not target.work.model.stackable:
        raise ConfigError("audit: releases are audited of adapters; set model.lora_rank or model.prefix > 0.")
    coins = [random.random() < 0.5 for _ in range(n_canaries)]
    shards, owners = _planted(target.work, coins, unit)
    budgets = target.budgets({client: len(shard.items) for client, shard in shards.items()})
    names = ["" if unit.at_server else owner for owner in owners]
    own = {name: torch.tensor([at for at, one in enumerate(names) if one == name]) for name in set(names)}
    tape = _Tape(torch.zeros(n_canaries), own, budgets)
    recorder = _Recorder(target.work.plan.mechanism, tape, target.work.plan.local.steps)
    used = {name: replace(one, noise_multiplier=target.noise * one.noise_multiplier) for name, one in budgets.items()}
    work = _with(target, shards, used, recorder, n_canaries, seed)
    plan = work.plan
    carrier = lookup(Engine, "cohort")().resolved(work, n_clients=len(plan.clients)).start(work)
    state = begin(plan, flatten(work.model.trainable).cpu())
    for done, _ in train(plan, state, carrier):
        state, tape.sign = done, 1 - 2 * (done.round % 2)
    uses = {name: max(1, state.spent.get(name, 0)) for name in own}
    epsilon = {
        one: next(iter(target.work.plan.mechanism.spent(*one).values()))
        for one in {(budgets[name], uses[name]) for name in own}
    }
    worst = max(epsilon, key=lambda one: epsilon[one])
    return Trials(
        tape.sum_M.double().numpy() / np.sqrt([uses[name] for name in names]),
        np.array(coins),
        *worst,
        epsilon[worst],
        max(budget.delta for budget in budgets.values()),
        _shapes(target, Counter(names), uses, len(work.model.trainable)),
    )


def _shapes(target: Target, counts: Mapping[str, int], uses: Mapping[str, int], n_tensors: int) -> Counter[Shape]:
    """Return how the canaries' scores lie by what the mechanism says of itself, if half of each owner's join.

    Under an adaptive norm a clipped canary and the noise grow alike, so that the norm at the start tells their ratio.
    """
    mechanism, unit = target.work.plan.mechanism, target.work.plan.mechanism.covers()
    sizes = {client: len(shard.items) for client, shard in target.work.shards.items()}
    if unit.per_example:
        sizes = {client: size + counts.get(client, 0) // 2 for client, size in sizes.items()}
    elif unit.at_server:
        sizes = dict.fromkeys(map(str, range(max(1, counts[""] // 2))), 1)
    else:
        sizes = dict.fromkeys(counts, 1)
    budgets = target.budgets(sizes)
    norm_L1 = torch.zeros(n_tensors if unit.per_example else 1, 1)
    norm_L1[-1] = _STEEP
    height = min(float((norm_L1 * mechanism.scales(norm_L1, mechanism.init()))[-1]), mechanism.bound())
    found: Counter[Shape] = Counter()
    for name, count in counts.items():
        budget = budgets[name]
        population = sizes.get(name, 1) if unit.per_example else len(sizes) if unit.at_server else 1
        spread = max(mechanism.spread(budget, mechanism.init(), budget.rate * population), _NO_NOISE)
        found[Shape(height / spread, budget.rate, uses[name], unit.whole_client and not unit.at_server)] += count
    return found


# ----------------------------------------------------------------------------------------------------------- planting


@dataclass(frozen=True, slots=True)
class _Marked:
    """A real item as a canary."""

    item: Item
    canary: int
    side: int


def _bare(item: Item) -> Item:
    return item.item if isinstance(item, _Marked) else item


def _planted(work: Work, coins: Sequence[bool], unit: Unit) -> tuple[dict[str, Shard], list[str]]:
    """Return the clients' examples with the canaries, and who owns each canary."""
    own = {client: work.shard(client).items for client in work.shards}
    items = [item for owned in own.values() for item in owned]
    short = min(items, key=work.task.size)
    own_row = not unit.per_example and not unit.at_server
    marked = [_Marked(short, index, -1 if own_row and not coin else 1) for index, coin in enumerate(coins)]
    if unit.per_example:
        clients = list(own)
        owners = [clients[index % len(clients)] for index in range(len(coins))]
        joined = {client: list(owned) for client, owned in own.items()}
        for item, owner, coin in zip(marked, owners, coins, strict=True):
            joined[owner] += [item] * coin
        return {client: Shard(tuple(own)) for client, own in joined.items()}, owners
    owners = [f"canary {index}" for index in range(len(coins))]
    tossed = zip(owners, marked, coins, strict=True)
    return {owner: Shard((item,)) for owner, item, coin in tossed if coin or own_row}, owners


def _with(
    target: Target,
    shards: Mapping[str, Shard],
    budgets: Mapping[str, PrivacyBudget],
    recorder: "_Recorder",
    n_canaries: int,
    seed: int,
) -> Work:
    """Return the training with one more number for each canary; what comes behind a release is the plain mean."""
    model = target.work.model
    model = replace(model, trainable={**model.trainable, _NAME: torch.zeros(n_canaries, device=model.device)})
    local = target.work.plan.local
    if not recorder.covers().per_example:  # a row that is its canary's gradient, before it is clipped
        local = LocalSettings(lr=_LR, schedule="constant", steps=1, batch=1, optimiser="sgd", clip_norm=0.0)
    task = _PlantedTask(target.work.task, recorder.tape, example=recorder.covers().per_example)
    layout = Layout.of_tree(model.trainable)
    plan = replace(
        target.work.plan,
        rule=lookup(Rule, "plain")(),
        server_opt=lookup(ServerOpt, "sgd")(),
        aggregator=lookup(Aggregator, "mean")(),
        codec=lookup(Codec, "float32")(),
        local=local,
        weighting="uniform",
        clients=tuple(shards),
        clients_per_round=min(target.work.plan.clients_per_round, len(shards)),
        seed=seed,
        mechanism=recorder,
        budgets=budgets,
        layout=layout,
        ranks={},
        steps={},
        stream=seed,
    )
    return replace(target.work, plan=plan, model=model, task=task, shards=shards, private={})


@dataclass
class _Tape:
    """What was released of each canary's number so far, over the deviation of its noise, each use with its sign."""

    sum_M: Tensor
    own: Mapping[str, Tensor]
    """The canaries among each owner's data; under "" those among all clients."""
    stated: Mapping[str, PrivacyBudget]
    """The owners' budgets with all of their noise."""
    sign: int = 1

    def take(self, owner: str, released_M: Tensor, spread: float) -> None:
        """Add what one release from an owner's data holds of its canaries."""
        if owner in self.own:
            self.sum_M[self.own[owner]] += self.sign / max(spread, _NO_NOISE) * released_M[self.own[owner]]


@dataclass(frozen=True)
class _PlantedTask(Task):
    """What training asks of the task, with a steep slope for each canary among the examples."""

    inner: Task
    tape: _Tape
    example: bool
    """Whether a contribution is an example's gradient; else it is a client's row, which runs against the gradient."""
    marks: list[tuple[Batch, Tensor, Tensor]] = field(default_factory=list[tuple[Batch, Tensor, Tensor]])

    def size(self, item: Item) -> int:
        return self.inner.size(_bare(item))

    def collate(self, parts: Sequence[Sequence[Item]], model: Any) -> Batch:
        batch = self.inner.collate([[_bare(item) for item in part] for part in parts], model)
        items = [item for part in parts for item in part]
        marked = [(at, item.canary, item.side) for at, item in enumerate(items) if isinstance(item, _Marked)]
        at, canary, side = torch.tensor(marked, dtype=torch.int64, device=model.device).view(-1, 3).unbind(1)
        self.marks[:] = [(batch, torch.stack((at, canary)), side)]
        return batch

    def loss(self, model: Any, params: Tree, batch: Batch) -> LossSum:
        bare = {name: tensor for name, tensor in params.items() if name != _NAME}
        found = self.inner.loss(model, bare, batch)
        ((known, (at, canary), side),) = self.marks
        if known is not batch or not len(at):
            return found
        # Of several sequences the first carries the slope; an example's gradient is the sum over them.
        row = batch.first_X[at] if model.context.per_example else batch.owner_X[at]
        slope = _STEEP * self.tape.sign if self.example else -_STEEP / _LR * self.tape.sign
        steep = slope * side * params[_NAME][row, canary] * found.weight_B[at]
        return LossSum(found.total_B.index_add(0, at, steep.to(found.total_B)), found.weight_B)


# ---------------------------------------------------------------------------------------------------------- recording


@dataclass(frozen=True)
class _From:
    """A source of noise that knows what it is for."""

    noise: Noise
    client: str

    def __call__(self, count: int) -> Tensor:
        return self.noise(count)


@dataclass(frozen=True)
class _Recorder(Mechanism):
    """What training asks of the mechanism, which is itself; what it releases of the canaries is written down."""

    inner: Mechanism
    tape: _Tape
    steps: int
    """Uses of a client's examples in a round."""

    def covers(self) -> Unit:
        return self.inner.covers()

    def init(self) -> Tree:
        return self.inner.init()

    def scales(self, norms_LE: Tensor, state: Tree) -> Tensor:
        return self.inner.scales(norms_LE, state)

    def release(self, sum_P: Tensor, **settings: Any) -> tuple[Tensor, Tree]:
        owner, expected = settings["noise"].client, settings["expected"]
        spread = self.inner.spread(self.tape.stated[owner], settings["state"], expected)
        released_P, state = self.inner.release(sum_P, **settings)
        self.tape.take(owner, expected * released_P[-len(self.tape.sum_M) :].cpu(), spread)
        return released_P, state

    def source(self, *names: str | int) -> Noise:
        if names[0] == "sampling":  # a step begins, the same one for all who train beside each other
            self.tape.sign = 1 - 2 * ((int(names[2]) * self.steps + int(names[4])) % 2)
        return _From(self.inner.source(*names), str(names[3]) if len(names) > 3 else "")
