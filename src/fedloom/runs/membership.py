"""Was an example trained on? What its loss says, asked of every client's own examples and averaged over the clients.

By loss (Yeom et al., 2018, https://arxiv.org/abs/1709.01604, adversary 2): an example is taken for a member the more
the smaller its loss is. By reference models: `leakage.attacks.lira_scores`. Members are a client's own examples before
any preparation; non-members what was held out, its own or else of the common test, in the same mixture of classes. Told
are the area under the curve (0.5: no signal), the balanced accuracy by a threshold from the other half of the examples,
and the share of members found where at most 1 % of non-members are taken for some. The control asks the same of two
sets that no model saw.

Deviations: published are as many non-members as members; here up to eight times as many, for less noise, as none of
these numbers depends on how many there are. With fewer than 100 of them "1 %" is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Example
from fedloom.evaluation.held_out import Scored
from fedloom.federated.alone import tuned_apart
from fedloom.runs.audit_bounds import separations
from fedloom.runs.leakage.attacks import lira_scores
from fedloom.runs.prepared import Prepared

__all__ = ["Asked", "asked_of", "balanced_accuracy", "membership"]

Array = NDArray[np.float64]
_FALSE_ALARMS = 0.01
_TIMES = 8  # non-members to a member


@dataclass(frozen=True)
class Asked:
    """Items of one client: members, non-members, and as many others that no model saw."""

    members: tuple[Any, ...]
    others: tuple[Any, ...]
    unseen: tuple[Any, ...]

    @property
    def items(self) -> tuple[Any, ...]:
        """All of them in this order."""
        return self.members + self.others + self.unseen


def membership(ready: Prepared, models: Sequence[tuple[str, Tree]], *, final: bool) -> list[Scored]:
    """Return for each client and model of its own, or that all share, what the attacks find.

    Reference models are asked of the `final` model alone.
    """
    settings = ready.run.evaluation.membership
    if settings is None:
        return []
    asked = asked_of(ready, settings.by)
    references = _References.of(ready, asked, settings.references) if settings.references and final else None
    found: list[Scored] = []
    for owner, params in models:
        for number, (client, one) in enumerate(asked.items()):
            if owner in ("", client):
                scores = _scores(ready, params, client, one, references)
                found.append(Scored("membership", number, owner, {"client": client}, scores))
    return found


def asked_of(ready: Prepared, by: str) -> dict[str, Asked]:
    """Return whom the attacks ask about, alike in a tag; refused where nothing is held out to tell members from."""
    found = {client: _asked(ready, client, by) for client in ready.owned}
    found = {client: one for client, one in found.items() if len(one.members) > 1}
    if not found:
        raise DataError(
            "evaluation.membership: no client has two examples and, of the same classes, four that are held out; give "
            "data with a larger test, raise evaluation.holdout, or leave it out."
        )
    return found


def _asked(ready: Prepared, client: str, by: str) -> Asked:
    division = ready.division
    held = division.validation.get(client, ()) or division.test
    members, pool = (_by_value(part, by) for part in (ready.owned[client], held))
    sizes = {value: min(len(own), len(pool.get(value, ())) // 2) for value, own in members.items()}
    times = min((len(pool[value]) // (2 * n) for value, n in sizes.items() if n), default=1)
    parts: list[list[Example]] = [[], [], []]
    for value, n in sizes.items():
        random, many = rng.python_random(ready.run.seed, "membership", client, value), n * min(times, _TIMES)
        drawn = random.sample(pool.get(value, []), 2 * many)
        for part, chosen in zip(parts, (random.sample(members[value], n), drawn[:many], drawn[many:]), strict=True):
            part += chosen
    return Asked(*(tuple(ready.run.task.encode(one, ready.model) for one in part) for part in parts))


def _by_value(examples: Sequence[Example], tag: str) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for one in examples:
        found.setdefault(one.tags.get(tag, ""), []).append(one)
    return found


def _scores(
    ready: Prepared, params: Tree, client: str, one: Asked, references: "_References | None"
) -> dict[str, Mean]:
    loss_E = _losses(ready, params, one.items)
    n, many = len(one.members), len(one.members) + len(one.others)
    members, others, unseen = -loss_E[:n], -loss_E[n:many], -loss_E[many:]
    told = _told("membership", members, others) | {"membership_unseen": _separation(unseen, others)[0]}
    if references is None:
        return told
    sure_E = references.scores(client, loss_E[:many])
    return told | _told("reference", sure_E[:n], sure_E[n:])


def _told(name: str, members: Array, others: Array) -> dict[str, Mean]:
    auc, tpr = _separation(members, others)
    accuracy = Mean(balanced_accuracy(members, others), 1.0)
    return {f"{name}_auc": auc, f"{name}_accuracy": accuracy, f"{name}_tpr": tpr}


def _separation(members: Array, others: Array) -> tuple[Mean, Mean]:
    """Return AUC and true-positive rate; a client counts once, whatever its pairs."""
    found = separations(members, others, _FALSE_ALARMS, 0, rng.numpy_random("membership"))
    auc, rate = (Mean(float(found_R[0]), 1.0) for found_R in found)
    return auc, rate


def balanced_accuracy(members: Array, others: Array) -> float:
    """Return the mean of both shares told right, by the best threshold on one half and asked on the other, both ways.

    >>> balanced_accuracy(np.arange(4.0) + 9, np.arange(4.0))
    1.0
    """
    halves = [(members[at::2], others[at::2]) for at in (0, 1)]
    shares = [_shares(*asked, _threshold(*fitted)) for fitted, asked in (halves, halves[::-1])]
    return float(np.mean(shares))


def _threshold(members: Array, others: Array) -> float:
    candidates = np.sort(np.concatenate([members, others]))
    right = 1 - np.sort(members).searchsorted(candidates) / len(members)
    left = np.sort(others).searchsorted(candidates) / len(others)
    return float(candidates[int(np.argmax(right + left))])


def _shares(members: Array, others: Array, threshold: float) -> float:
    return (float(np.mean(members >= threshold)) + float(np.mean(others < threshold))) / 2


def _losses(ready: Prepared, params: Tree, items: Sequence[Any]) -> Array:
    with torch.no_grad():
        (told,) = ready.run.task.scores(ready.model, params, [items])
    return np.array([one["loss"].value for one in told])


@dataclass(frozen=True)
class _References:
    """Losses [R, E] of reference models on each client's members and non-members, and which were trained on which."""

    loss_by_client: Mapping[str, Array]
    inside_by_client: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, ready: Prepared, asked: Mapping[str, Asked], n_models: int) -> "_References":
        """Train the reference models, each in one place for as many steps as a client takes in the whole run."""
        run = ready.run
        names = [*asked]
        items = {client: one.members + one.others for client, one in asked.items()}
        whole = [item for client in names for item in items[client]]
        inside_RE = _halves(n_models, len(whole), run.seed)
        plain = {"epochs": 0.0, "curriculum": 1, "warmup": 0, "match_exposure": False, "pretrain": 0}
        local = replace(run.local, steps=run.local.steps * run.rounds, p_generated=None, **plain)
        shards = {str(at): [whole[e] for e in np.flatnonzero(row)] for at, row in enumerate(inside_RE)}
        params = ready.shared | ready.private | ready.middle
        tuned = tuned_apart(ready.model, run.task, params, shards, local, seed=rng.seed_of(run.seed, "references"))
        loss_RE = np.stack([_losses(ready, tuned[str(at)], whole) for at in range(n_models)])
        ends = np.cumsum([len(items[client]) for client in names])[:-1]
        losses, sides = np.split(loss_RE, ends, axis=1), np.split(inside_RE, ends, axis=1)
        return cls(dict(zip(names, losses, strict=True)), dict(zip(names, sides, strict=True)))

    def scores(self, client: str, loss_E: Array) -> Array:
        """Return how much surer the model is of each example than reference models that were not trained on it."""
        return lira_scores(loss_E, self.loss_by_client[client], self.inside_by_client[client])


def _halves(n_models: int, n_items: int, seed: int) -> NDArray[np.bool_]:
    """Return which half of the items each model is trained on [R, E]: every item in half of the models."""
    random = rng.numpy_random("halves", seed)
    inside_RE = np.zeros((n_models, n_items), bool)
    for at in range(0, n_models, 2):
        inside_RE[at] = random.permutation(n_items) < n_items // 2
        if at + 1 < n_models:
            inside_RE[at + 1] = ~inside_RE[at]
    return inside_RE
