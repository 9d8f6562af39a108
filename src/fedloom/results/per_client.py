"""How the clients of a run fare: each on its own questions, and each model on those put to all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedloom.base.plugin import lookup, names, plugins
from fedloom.contracts.federated import CorpusMetric, Metric, Task
from fedloom.evaluation.held_out import Scored, group_means
from fedloom.evaluation.statistics import Array
from fedloom.results.outcome import Outcome
from fedloom.runs.arrangements.clustered import Clustered, most_frequent
from fedloom.runs.tuning import arrangement_of

__all__ = [
    "PerClient",
    "by_knowledge",
    "direction",
    "fairness",
    "languages_of_models",
    "models_of_clients",
    "per_client",
    "score_names",
]

_LOWER_IS_BETTER = ("loss", "answer_loss", "brier")
_NEITHER = ("chosen_reward", "rejected_reward", "kl_to_reference", "confidence")


def direction(score: str) -> int:
    """Return 1 if more of a score is better, -1 if less is, 0 if neither, or if that is not known here."""
    for family in (Metric, CorpusMetric):
        if score in names(family):
            better = lookup(family, score).higher_is_better
            return 0 if better is None else 1 if better else -1
    if score in _NEITHER or not any(score in task.tells for task in plugins(Task).values()):
        return 0
    return -1 if score in _LOWER_IS_BETTER else 1


@dataclass(frozen=True)
class PerClient:
    """A score by client."""

    questions: str
    score: str
    values: Mapping[str, float]

    @property
    def fairness(self) -> dict[str, float]:
        """What `fairness` tells of the clients' values."""
        told = fairness(np.array([[*self.values.values()]]), direction(self.score) or 1)
        return {name: float(value_R[0]) for name, value_R in told.items()}


def fairness(values_RN: Array, sign: int) -> dict[str, Array]:
    """Return, of the scores of N clients, what they tell of fairness, each [R]; `sign` is -1 where less is better.

    Mean; 10th percentile; means of the worst and of the best decile and the worst client; gap, the best decile less the
    worst; standard deviation over clients.
    """
    sorted_RN = np.sort(sign * values_RN, axis=1)
    count = max(1, math.ceil(0.1 * sorted_RN.shape[1]))
    worst_R, best_R = sorted_RN[:, :count].mean(axis=1), sorted_RN[:, -count:].mean(axis=1)
    return {
        "mean": values_RN.mean(axis=1),
        "tenth_percentile": sign * np.percentile(sorted_RN, 10, axis=1),
        "worst_decile": sign * worst_R,
        "best_decile": sign * best_R,
        "worst_client": sign * sorted_RN[:, 0],
        "gap": best_R - worst_R,
        "deviation": values_RN.std(axis=1),
    }


def score_names(scored: Sequence[Scored]) -> list[str]:
    """Return the names of all scores of some examples, in the order of their first appearance."""
    return list(dict.fromkeys(name for one in scored for name in one.scores))


def models_of_clients(found: Outcome) -> dict[str, tuple[str, ...]]:
    """Return the clients of each model that not all of them share, by its owner."""
    owners = dict.fromkeys(one.owner for one in found.results.get("final", ()) if one.owner)
    arrangement = arrangement_of(found.settings)
    if not isinstance(arrangement, Clustered) or not found.card:
        return {owner: (owner,) for owner in owners}
    groups = {name: tuple(clients) for name, clients in arrangement.clients(found.card).items()}
    # Where some numbers stay private, every client of a cluster has a model of its own.
    return groups if owners.keys() <= groups.keys() else {owner: (owner,) for owner in owners}


def languages_of_models(run: Outcome, tag: str) -> dict[str, frozenset[str]]:
    """Return, by a model's owner, the most frequent value of a tag for each of its clients; "" owns what all share."""
    spoken = most_frequent(run.card, tag)
    return {
        owner: frozenset(spoken[client] for client in clients if client in spoken)
        for owner, clients in models_of_clients(run).items()
    }


def per_client(found: Outcome) -> list[PerClient]:
    """Return how the clients fare: each on the questions that are its own, and each model on common ones."""
    final, clients = found.results.get("final", ()), models_of_clients(found)
    rows: list[PerClient] = []
    for name in dict.fromkeys(one.set for one in final):
        asked = [one for one in final if one.set == name]
        own = [one for one in asked if "client" in one.tags]
        own = [one for one in own if not one.owner or one.tags["client"] in clients[one.owner]]
        common = [one for one in asked if "client" not in one.tags and one.owner]
        for score in score_names(asked):
            by_client = group_means(own, score, lambda one: one.tags["client"])
            by_model = group_means(common, score, lambda one: one.owner)
            for group, means in ((f"{name}, own", by_client), (f"{name}, common", by_model)):
                values = {client: mean.value for client, mean in means.items() if mean.weight}
                if values:
                    rows.append(PerClient(group, score, values))
    return rows


def by_knowledge(found: Outcome, facts: Literal["own", "others"]) -> Outcome:
    """Return the run with each client's model on the test questions about what its own records are about, or the rest.

    A model that clients share stands once for each of them. Nothing is left of a run whose card does not say what
    clients know: its questions have no tag `evaluation.cluster`, or privacy hides it.
    """
    knows = {client: frozenset(values) for client, values in found.card.get("knows", {}).items()}
    clients = models_of_clients(found)
    results = {
        phase: tuple(
            replace(one, owner=client)
            for one in scored
            if one.set == "test" and found.cluster in one.tags
            for client in clients.get(one.owner, tuple(knows))
            if client in knows and (one.tags[found.cluster] in knows[client]) == (facts == "own")
        )
        for phase, scored in found.results.items()
    }
    return replace(found, results=results)
