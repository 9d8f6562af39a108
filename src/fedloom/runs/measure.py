"""The scores of a state: every model it holds over every held-out set, written down before they are reported."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fedloom.base.files import disk_errors, file_name, write_atomic
from fedloom.base.mean import Mean, summed
from fedloom.base.tree import Layout, Slots, Tree
from fedloom.contracts.federated import Plan
from fedloom.evaluation.held_out import Examinee, HeldOut, Scored, evaluate, group_means
from fedloom.federated.rounds import State
from fedloom.runs.corpus import corpus_means
from fedloom.runs.directory import RunDirectory
from fedloom.runs.membership import membership
from fedloom.runs.prepared import Prepared
from fedloom.runs.stage import Stage

__all__ = ["Ask", "Evaluated", "OwnScores", "hashed", "measure", "models_of"]


_TOGETHER = 8  # models of clients that are evaluated in one pass of the base


@dataclass(frozen=True)
class OwnScores:
    """What a client elsewhere tells of the model on what it holds out: sums over the examples, and their number."""

    examples: int
    means: Mapping[str, Mean]


@dataclass(frozen=True)
class Evaluated:
    """Scores have been taken: means by name, `set/score` and `set/score/domain`."""

    phase: str
    leg: str
    means: Mapping[str, float]
    wall_s: float
    scored: tuple[Scored, ...] = field(default=(), repr=False)
    """The scored examples, as they are written down."""


Ask = Callable[[Plan, State, str], Mapping[str, OwnScores]]
"""Asks the clients that are elsewhere for their scores of a state, in a phase."""


def models_of(ready: Prepared, state: State, stage: Stage) -> list[tuple[str, Tree]]:
    """Return the models that a state holds, by owner: the stage's, or one per client where some numbers are private.

    Before the first round all of them are alike, and one stands for all.
    """
    device = ready.model.device
    shared = ready.layout.tree(state.params_P.to(device)) if ready.shared else {}
    trained = {client: _middle(ready, row_P) for client, row_P in state.middle.get("rows", {}).items()}
    shared |= trained.pop("", ready.middle)
    if not (ready.private or trained) or state.round == 0:
        return [(stage.owner if state.round else "", shared | ready.private)]
    own = Layout.of_tree(ready.private)
    models: list[tuple[str, Tree]] = []
    for client in stage.plan.clients:
        memory: Slots = state.memory.get(client, {})
        private = own.tree(memory["private"][""].to(device)) if "private" in memory else ready.private
        models.append((client, shared | private | trained.get(client, {})))
    return models


def _middle(ready: Prepared, row_P: Tensor) -> Tree:
    return Layout.of_tree(ready.middle).tree(row_P.to(ready.model.device))


def measure(
    ready: Prepared,
    directory: RunDirectory,
    state: State,
    stage: Stage,
    *,
    phase: str,
    wall_s: float,
    ask: Ask | None = None,
) -> Evaluated:
    """Evaluate every model of the state; write metrics, samples and, but for phases that are rounds, every result.

    Clients elsewhere are asked by `ask`; what they tell is added up.
    """
    settings = ready.run.evaluation
    kept = _same if ready.run.keeps_text else _hashed
    models = models_of(ready, state, stage)
    together = _TOGETHER if ready.model.stackable else 1
    groups = [models[start : start + together] for start in range(0, len(models), together)]
    scored = [one for group in groups for one in _scores(ready, group, stage)]
    if not phase.startswith("round"):
        scored += membership(ready, models, final=phase == "final")
    means = _means(scored) | corpus_means(settings.corpus_metrics, scored)
    told_by = ask(stage.plan, state, phase) if ask else {}
    parts = (part for one in told_by.values() for part in one.means.items())
    means |= {f"validation/{name}": mean for name, mean in summed(parts).items()}
    head = {"round": state.round, "wall_s": wall_s, "leg": stage.name, "phase": phase}
    lines = [head | {"name": name, "total": mean.total, "weight": mean.weight} for name, mean in means.items()]
    directory.append("metrics.jsonl", lines)
    told = tuple(kept(_without_private_texts(scored, settings.cluster)))
    if not phase.startswith("round"):
        directory.append("results.jsonl", [one.as_record() | {"phase": phase} for one in told])
    directory.append("ledger.jsonl", _ledger(scored, told_by, state.round, phase))
    tested = [one for one in scored if "client" not in one.tags]
    name = f"{phase}_{file_name(stage.name)}" if stage.name and phase != "base" else phase
    _write_samples(directory, kept(tested[: settings.samples]), name)
    if ready.run.of_real_harm:
        for file in (directory.path / "results.jsonl", directory.path / "samples" / f"{name}.jsonl"):
            file.chmod(0o600)
    return Evaluated(phase, stage.name, {name: mean.value for name, mean in means.items()}, wall_s, told)


def _scores(ready: Prepared, models: Sequence[tuple[str, Tree]], stage: Stage) -> list[Scored]:
    """Return the scores of models that pass the base together, owner by owner."""
    settings = ready.run.evaluation
    metrics = {metric.name: metric for metric in settings.metrics}
    # Without a test split the test is what clients hold out: the same questions are not asked again.
    known: dict[str, dict[int, Scored]] = {owner: {} for owner, _ in models}
    scored: dict[str, list[Scored]] = {owner: [] for owner, _ in models}
    for held in ready.held:
        asked = [Examinee(owner, params, _asked_of(held, owner, ready, stage)) for owner, params in models]
        new = [one for one in asked if any(id(example) not in known[one.owner] for example in one.held.examples)]
        found = evaluate(
            ready.model,
            ready.run.task,
            new,
            metrics=metrics,
            max_new_tokens=settings.max_new_tokens,
            shown=ready.shown,
        )
        for one, scores in zip(new, found, strict=True):
            known[one.owner] |= {id(example): told for example, told in zip(one.held.examples, scores, strict=True)}
        for one in asked:
            pairs = zip(one.held.examples, one.held.numbers, strict=True)
            told = known[one.owner]
            scored[one.owner] += [replace(told[id(example)], set=held.name, index=number) for example, number in pairs]
    return [one for found in scored.values() for one in found]


def _asked_of(held: HeldOut, owner: str, ready: Prepared, stage: Stage) -> HeldOut:
    """Return what a model is asked: of the validation set a client's or cluster's own part, of the test everything."""
    if not owner or held.name != "validation":
        return held
    return held.of_clients((owner,) if owner != stage.owner else stage.plan.clients)


def _means(scored: Sequence[Scored]) -> dict[str, Mean]:
    means: dict[str, Mean] = {}
    for score in dict.fromkeys(name for one in scored for name in one.scores):
        means |= group_means(scored, score, lambda one, score=score: f"{one.set}/{score}")
        tagged = [one for one in scored if "domain" in one.tags]
        means |= group_means(tagged, score, lambda one, score=score: f"{one.set}/{score}/{one.tags['domain']}")
    return means


def _ledger(
    scored: Sequence[Scored], elsewhere: Mapping[str, OwnScores], round: int, phase: str
) -> list[dict[str, Any]]:
    """Return what evaluation lets out: each client's scores on its own held-out examples."""
    told = {"validation": "scores of its held-out examples", "membership": "how its own examples are told from others"}
    counts = Counter((one.tags["client"], told[one.set]) for one in scored if one.set in told)
    counts.update({(client, told["validation"]): one.examples for client, one in elsewhere.items()})
    return [
        {"round": round, "client": client, "what": f"{phase}: {what}", "examples": count}
        for (client, what), count in counts.items()
    ]


def _without_private_texts(scored: Sequence[Scored], cluster: str) -> list[Scored]:
    """Return scored examples, those that belong to a client without their texts; a common test keeps them.

    Of what a client's questions are about only which are about the same: a number in the order of its first question.
    """
    asked = sorted({(one.set, one.index, one.tags[cluster]) for one in scored if cluster in one.tags})
    numbers = {about: str(number) for number, about in enumerate(dict.fromkeys(about for *_, about in asked))}
    result: list[Scored] = []
    for one in scored:
        tags = {name: one.tags[name] for name in ("client", "domain", "language") if name in one.tags}
        tags |= {cluster: numbers[one.tags[cluster]]} if cluster in one.tags else {}
        hidden = replace(one, tags=tags, prompt="", reference="", prediction="")
        result.append(hidden if "client" in one.tags else one)
    return result


def _same(scored: Sequence[Scored]) -> Sequence[Scored]:
    return scored


def _hashed(scored: Sequence[Scored]) -> list[Scored]:
    """Return scored examples with hashes in place of texts."""
    return [
        replace(one, prompt=hashed(one.prompt), reference=hashed(one.reference), prediction=hashed(one.prediction))
        for one in scored
    ]


def hashed(text: str) -> str:
    """Return what stands for a text where none is written down: two are told apart, and none is read."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}" if text else ""


def _write_samples(directory: RunDirectory, scored: Sequence[Scored], name: str) -> None:
    with disk_errors(directory.path / "samples"):
        (directory.path / "samples").mkdir(exist_ok=True)
    lines = [
        json.dumps({"prompt": one.prompt, "reference": one.reference, "prediction": one.prediction}, ensure_ascii=False)
        for one in scored
    ]
    write_atomic(directory.path / "samples" / f"{name}.jsonl", "".join(line + "\n" for line in lines))
