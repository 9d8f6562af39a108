"""Shadow models: the run trained again on random halves of what the attacked examples were drawn from.

Carlini et al. 2021, https://arxiv.org/abs/2112.03570, algorithm 1. Of two shadows one is trained on one half of each
client's own examples and the other on the rest, so that half of all shadows have not seen an example, whatever their
number. Secrets are in none. Each keeps the run's schedule, mechanism and target of epsilon, calibrated on its own n.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.contracts.arrangement import Group
from fedloom.contracts.federated import Item, Shard
from fedloom.runs.attacked import trained
from fedloom.runs.budgets import budgets_of
from fedloom.runs.directory import RunDirectory
from fedloom.runs.leakage.looking import Looking
from fedloom.runs.prepared import Prepared
from fedloom.runs.stage import Stage, stage_of

__all__ = ["shadow_losses"]


def shadow_losses(
    ready: Prepared, items: Sequence[Item], owner_N: Sequence[tuple[str, str]], count: int, directory: RunDirectory
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the mean loss of each of N examples by each of S shadow models [S, N], and whether it was trained on.

    `owner_N` are each example's client and text; equal texts of a client are on one side.
    """
    inside_SN = np.stack([_half(tuple(ready.shards), owner_N, number, ready.run.seed) for number in range(count)])
    losses: list[list[float]] = []
    for number, inside_N in enumerate(inside_SN):
        stage = _stage(ready, items, [client for client, _ in owner_N], inside_N, number)
        *_, (state, _, _) = trained(ready, stage, RunDirectory(directory.path / f"shadow_{number}"))
        losses.append([float(one.mean()) for one in Looking.at(ready, state).token_losses(items)])
    return np.array(losses), inside_SN


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
    budgets = budgets_of(run, {client: len(shard.items) for client, shard in shards.items()})
    stage = stage_of(run, Group("", shards, run.clients_per_round, run.local.steps), ready, budgets)
    # The noise, too, is its own: that of the attacked run is not known to who attacks.
    plan = replace(stage.plan, stream=f"shadow {number} of {stage.plan.stream}")
    return replace(stage, work=replace(stage.work, plan=plan))
