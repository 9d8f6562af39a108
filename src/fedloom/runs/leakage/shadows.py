"""Shadow models: the run trained again on random halves of what the attacked examples were drawn from.

Carlini et al. 2021, https://arxiv.org/abs/2112.03570, algorithm 1. Of two shadows one is trained on one half of each
client's own examples and the other on the rest, so that half of all shadows have not seen an example, whatever their
number. Secrets are in none. Each keeps the run's schedule, mechanism and target of epsilon, calibrated on its own n.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.contracts.arrangement import Group
from fedloom.contracts.federated import Item, Shard
from fedloom.federated.rounds import ended
from fedloom.runs.attacked import trained
from fedloom.runs.budgets import budgets_of
from fedloom.runs.departures import server_lines
from fedloom.runs.directory import RunDirectory
from fedloom.runs.leakage.looking import Looking
from fedloom.runs.prepared import Prepared
from fedloom.runs.stage import Stage, stage_of

__all__ = ["Shadowed", "shadowed"]


@dataclass(frozen=True)
class Shadowed:
    """What S shadow models say of N examples."""

    loss_SN: NDArray[np.float64]
    """The mean loss of each example by each model."""
    inside_SN: NDArray[np.bool_]
    """Whether the model was trained on it."""
    ledger: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What refining the shadows let out of the server."""


def shadowed(
    ready: Prepared, items: Sequence[Item], owner_N: Sequence[tuple[str, str]], count: int, directory: RunDirectory
) -> Shadowed:
    """Train S shadow models and ask them for N examples.

    `owner_N` are each example's client and text; equal texts of a client are on one side.
    """
    inside_SN = np.stack([_half(tuple(ready.shards), owner_N, number, ready.run.seed) for number in range(count)])
    losses: list[list[float]] = []
    ledger: list[dict[str, Any]] = []
    for number, inside_N in enumerate(inside_SN):
        stage = _stage(ready, items, [client for client, _ in owner_N], inside_N, number)
        losses.append([])
        for state, event, told in trained(ready, stage, RunDirectory(directory.path / f"shadow_{number}")):
            ledger += [line | {"shadow": number} for line in server_lines(event.record.round, stage, told)]
            if ended(stage.plan, state):  # earlier states are not kept: each is as large as the model
                losses[-1] = [float(one.mean()) for one in Looking.at(ready, state).token_losses(items)]
    return Shadowed(np.array(losses), inside_SN, ledger)


def _half(clients: Sequence[str], owner_N: Sequence[tuple[str, str]], number: int, seed: int) -> NDArray[np.bool_]:
    """Return which examples a shadow is trained on: half of each client's, the other half at the next odd number."""
    chosen: set[tuple[str, str]] = set()
    for client in clients:
        mine = sorted({text for own, text in owner_N if own == client})
        if len(mine) < 2:
            raise DataError(
                f"leakage: shadows need 2 texts of each client that no other has, client '{client}' has {len(mine)}; "
                "leave out --shadows."
            )
        rng.python_random("leakage", seed, "shadows", number // 2, client).shuffle(mine)
        middle = len(mine) // 2
        chosen |= {(client, text) for text in (mine[middle:] if number % 2 else mine[:middle])}
    return np.array([one in chosen for one in owner_N])


def _stage(
    ready: Prepared, items: Sequence[Item], client_N: Sequence[str], inside_N: NDArray[np.bool_], number: int
) -> Stage:
    run, shards = ready.run, dict[str, Shard]()
    for client in ready.shards:
        rows = zip(items, client_N, inside_N, strict=True)
        shards[client] = Shard(tuple(item for item, own, inside in rows if inside and own == client))
    sizes = {client: len(shard.items) for client, shard in shards.items()}
    budgets = budgets_of(run, sizes, numbers=ready.layout.size)
    stage = stage_of(run, Group("", shards, run.clients_per_round, run.local.steps), ready, budgets)
    # The noise, too, is its own: that of the attacked run is not known to who attacks.
    plan = replace(stage.plan, stream=f"shadow {number} of {stage.plan.stream}")
    return replace(stage, work=replace(stage.work, plan=plan))
