"""A tuning run with its model and data loaded, everything checked before the first step."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from fedloom.base.errors import ConfigError
from fedloom.base.machine import device_of
from fedloom.base.mean import Mean
from fedloom.base.tree import Layout
from fedloom.contracts.examples import Example, Turn
from fedloom.contracts.federated import Mechanism, Model, Shard, Source
from fedloom.contracts.generation import is_generated
from fedloom.contracts.lineage import Lineage, lineage_table
from fedloom.contracts.synthesis import PoolRow
from fedloom.data.clients import AllToOne, Division, cut_and_dropped, divide, encode_shards, refuse_measured
from fedloom.evaluation.held_out import HeldOut, held_out
from fedloom.federated.ranks import full_rank
from fedloom.runs.budgets import budgets_of
from fedloom.runs.choosing import refuse_unseen_choice
from fedloom.runs.corpus import refuse_few_texts
from fedloom.runs.origins import Origin, origin_of
from fedloom.runs.poisoned import attack_pairs, floor_and_ceiling, poisoned_shards
from fedloom.runs.preparing import Preparing
from fedloom.runs.stage import Loaded, Stage, stage_of
from fedloom.runs.tuning import TuningRun
from fedloom.synthesis.pool import read_pool, refuse_overlap
from fedloom.synthesis.questioning import shown

__all__ = [
    "Change",
    "Prepared",
    "divided",
    "load_model",
    "made",
    "prepare",
    "refuse_dropout",
    "refuse_known_questions",
]


@dataclass(frozen=True, kw_only=True)
class Prepared(Loaded):
    """A run with everything loaded."""

    run: TuningRun
    division: Division
    shards: Mapping[str, Shard]
    counts: Mapping[str, Mapping[str, int]]
    owned: Mapping[str, tuple[Example, ...]]
    """Each client's training examples before its preparations."""
    held: tuple[HeldOut, ...]
    shown: tuple[Turn, ...] = ()
    """Public examples that answers are written after."""
    stages: tuple[Stage, ...]
    malicious: tuple[str, ...] = ()
    """Who attacks, as a simulation knows; no rule, filter or refinement is told."""
    bounds: Mapping[str, Mean] = field(default_factory=dict[str, Mean])
    """What refusal rates say of attackers' answers and of refusals."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run's owner should know before the first step, a line each."""
        if not self.shards:
            plan = self.stages[0].plan
            own = plan.mechanism.covers().private and not plan.budgets
            told = "; each keeps the account of its privacy, and none is stated here" if own else ""
            return (f"{len(plan.clients)} clients are elsewhere: nothing is read here{told}", *self.model.notes)
        line, warns = cut_and_dropped(self.counts)
        first = f"WARNING: {line}; raise task.max_length" if warns else line
        return (
            first,
            *self.division.card.get("remarks", ()),
            *self._unheld(),
            *_absent(self.division.card),
            *_attacked(self.run),
            *_dependent_judges(self.run),
            *self.model.notes,
        )

    def _unheld(self) -> tuple[str, ...]:
        """Return a warning where a share was to be held out and nothing could be."""
        if self.held or not self.run.evaluation.holdout:
            return ()
        return (
            "WARNING: nothing is held out, so there will be no scores: each client's records are too few, or all "
            "alike; give data.test_path, or more records",
        )

    @property
    def origins(self) -> dict[str, Origin]:
        """What came before the run for each budget's data."""
        names, data = {name for stage in self.stages for name in stage.plan.budgets}, self.division.fingerprints
        kind = {"mechanism": self.run.privacy.name, "unit": self.run.privacy.covers().name}
        return {
            name: origin_of(
                self.lineage,
                **kind,
                data={data[name]} if name in data else {*data.values()},
                start_data=self.run.start_data,
            )
            for name in names
        }


class Change(Protocol):
    """What a measurement changes of the clients' training examples; budgets follow."""

    def before(self, division: Division, model: Model) -> Division:
        """Return what the clients' preparations are given."""
        ...

    def after(self, division: Division, model: Model) -> Division:
        """Return what is trained on."""
        ...


def prepare(run: TuningRun, folder: Path | None = None, change: Change | None = None) -> Prepared:
    """Return a run with its model and data loaded, all of it checked before the first step.

    What clients' preparations make is kept in `folder`, the run directory, and taken from there. A `change` is made
    before and after them.
    """
    division = divided(run)
    refuse_unseen_choice(run, division)
    sizes = {client: len(examples) for client, examples in division.train.items()}
    budgets = budgets_of(run, sizes)  # refuses before a model is loaded
    loaded = load_model(run)
    if not loaded.model.whole:
        raise ConfigError(
            "model.path: found parts of a model in a run of one place, where all of it is needed; give the whole model."
        )
    pairs = attack_pairs(run)
    refuse_known_questions(run, division, pairs)
    division = _identified(division, loaded.model, run, pairs)
    division = change.before(division, loaded.model) if change else division
    owned = division.train
    division = made(run, division, folder)
    division = change.after(division, loaded.model) if change else division
    if not run.privacy.covers().private:
        division = _knowing(division, run.evaluation.cluster)
    shards, counts = encode_shards(division, run.task, loaded.model)
    kept = {client: len(shard.items) for client, shard in shards.items()}
    if run.privacy.covers().in_sum or (budgets and kept != sizes):  # what cannot be learnt from is not drawn either
        budgets = budgets_of(run, kept, numbers=loaded.layout.size)
    held, told = _held(run, division, loaded.model)
    own = run.as_baseline() if run.protocol.baseline else run
    groups = run.protocol.groups(shards, division.card, per_round=run.clients_per_round, steps=run.local.steps)
    poisoned = poisoned_shards(own, division, pairs, loaded.model)
    stages = tuple(stage_of(own, group, loaded, budgets, poisoned=poisoned) for group in groups)
    for stage in stages:
        stage.plan.aggregator.check_count(stage.plan.clients_per_round)
        _ = stage.server  # what stops it is refused here
    return Prepared(
        **vars(loaded),
        run=run,
        division=division,
        shards=shards,
        counts=counts | told,
        owned=owned,
        held=held,
        shown=tuple(turn for row in _shown(run) for turn in row.turns),
        malicious=tuple(poisoned),
        bounds=floor_and_ceiling(run.evaluation.metrics, pairs, division.test),
        stages=stages,
    )


def divided(run: TuningRun, owner: str = "") -> Division:
    """Return who owns what; with an `owner` everything is its."""
    asked = run.evaluation.aside(private=run.privacy.covers().private)
    division = divide(
        run.data,
        AllToOne(owner) if owner else run.partition,
        n_clients=1 if owner else run.clients,
        seed=run.seed,
        aside=replace(asked, absent=()) if owner else asked,
        split=run.evaluation.split,
    )
    n_clients = len(division.train)
    if run.clients_per_round > n_clients and not owner:
        raise ConfigError(f"clients_per_round: found {run.clients_per_round}, the data have {n_clients} clients.")
    return division


def load_model(run: TuningRun) -> Loaded:
    """Return the model that a run starts from, checked against the run."""
    torch.set_num_threads(run.threads)
    model = run.model.build(seed=run.seed, device=device_of(run.device), train=run.train)
    _refuse_other_models(run, model)
    if not model.whole and not run.protocol.splits:
        raise ConfigError(
            f"model.path: found parts of a model with protocol '{run.protocol.name}', allowed for 'split' between "
            "machines; give the whole model."
        )
    refuse_dropout(model, run.privacy)
    at_server = run.protocol.middle(model)
    middle = {name: value for name, value in model.trainable.items() if name in at_server}
    ours = {name: value for name, value in model.trainable.items() if name not in at_server}
    shared = {name: value for name, value in ours.items() if re.search(run.protocol.shared(run.share), name)}
    if not shared and not middle and not run.protocol.baseline:
        raise ConfigError(f"share: '{run.share}' matches none of {len(model.trainable)} trained names.")
    private = {name: value for name, value in ours.items() if name not in shared}
    layout, lineage = Layout.of_tree(shared), run.model.lineage()
    _check_ranks(run, layout)
    if shared:
        run.aggregator.check_layout(Layout.of({"delta": shared}))
    for refinement in () if run.protocol.baseline else run.refine:
        refinement.require(model, run.task, shared)
    start = _start(model, lineage)
    kinds = {"shared": shared, "private": private, "middle": middle}
    return Loaded(model=model, layout=layout, **kinds, lineage=lineage, start=start)


def made(run: TuningRun, division: Division, folder: Path | None) -> Division:
    """Return the division with what the clients' preparations made of their examples."""
    if not run.prepare:
        return division
    train, told, quality = Preparing(run, folder).prepared(division.train, division.public)
    held = (*division.test, *(one for part in division.validation.values() for one in part))
    for client, examples in train.items():
        refuse_measured([one for one in examples if is_generated(one)], held, f"client '{client}': generated")
    left_out = sorted(division.train.keys() - train.keys())
    pools = [{"stage": step.name, **card} for step in run.prepare if (card := step.public_card())]
    card = {**division.card, "prepared": told, "pools": pools, "left_out": left_out}
    return replace(division, train=train, card=card, quality=quality)


def refuse_known_questions(run: TuningRun, division: Division, pairs: Sequence[Example] = ()) -> None:
    """Refuse public texts of stages, of a rule, or of attackers, that what is measured repeats, or one another."""
    defences = [one.public_texts() for one in (*run.prepare, *run.refine, run.aggregator)]
    defences.append({row.id: f"{row.instruction}\n{row.response}" for row in _shown(run)})
    attacked = {str(at): one for at, one in enumerate(pairs)}
    publics = [*defences, {name: one.text for name, one in attacked.items()}]
    if not any(publics):
        return
    owned = {f"{client} {at}": one for client, part in division.validation.items() for at, one in enumerate(part)}
    asked = {str(at): one for at, one in enumerate(division.test)} | owned
    for public in publics:
        _refuse_shared(public, asked, "held-out example", run.data)
    source = run.attack.pairs if run.attack else None
    for defence in defences if source else ():
        _refuse_shared(defence, attacked, "pair of the attack", source)


def _refuse_shared(public: Mapping[str, str], theirs: Mapping[str, Example], whose: str, source: Source | None) -> None:
    texts = {name: one.text for name, one in theirs.items()}
    units = {name: source.unit(one) for name, one in theirs.items()} if source else {}
    refuse_overlap(public, texts, whose, units)


def _absent(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield who takes no part, and what the test is then about."""
    if told := card.get("absent"):
        yield (
            f"{', '.join(told['clients'])} take no part: the test is {told['asked']} examples of theirs, "
            f"{told['of_groups_trained_on']} more are left out, as others train on the same"
        )


def _attacked(run: TuningRun) -> Iterator[str]:
    """Yield a warning where what is measured looks at examples that privacy is to protect."""
    if run.evaluation.membership and run.privacy.covers().private:
        yield (
            "WARNING: evaluation.membership looks at every client's own examples: what it tells is a simulation's, and "
            "no epsilon covers it"
        )


def _dependent_judges(run: TuningRun) -> Iterator[str]:
    """Yield a warning for each judge that was trained on what the run is about."""
    attacked = run.attack.pairs if run.attack else None
    origins = [name.lower() for source in (run.data, attacked) if source for name in source.origins() if name]
    stages = (*run.prepare, *run.refine)
    for name in dict.fromkeys(name for stage in stages for name in stage.trained_on_sets()):
        if any(name.lower() in origin for origin in origins):
            yield f"WARNING: judge not independent: it was trained on '{name}', which this run's data are of"


def _shown(run: TuningRun) -> Sequence[PoolRow]:
    """Return the public examples that answers are written after."""
    asked = run.evaluation
    if not asked.shown:
        return ()
    rows = read_pool(asked.shown_from, documents=False).rows
    if asked.shown > len(rows):
        raise ConfigError(f"evaluation.shown: found {asked.shown}, {asked.shown_from} has {len(rows)} rows.")
    return next(shown(rows, asked.shown, 1, run.seed))


def _held(run: TuningRun, division: Division, model: Model) -> tuple[tuple[HeldOut, ...], dict[str, Mapping[str, int]]]:
    """Return the sets of held-out examples, and the counts of what happened to them."""
    asked = run.evaluation
    validation = [example for examples in division.validation.values() for example in examples]
    # Without a test split all clients' held-out examples together are the questions that every model is asked.
    test = division.test or tuple(validation if asked.split == "report" else ())
    parts = {"test": test[: asked.limit or None], "validation": validation}
    sets = {name: held_out(name, part, run.task.examining(), model) for name, part in parts.items() if part}
    held = tuple(part for part, _ in sets.values())
    refuse_few_texts(asked.corpus_metrics, held)
    return held, {f"({name})": run.task.counts(items) for name, (_, items) in sets.items()}


def _start(model: Model, lineage: Lineage) -> str:
    """Return a hash of the weights that a run starts from and of their lineage; "" where they have none."""
    if not lineage:
        return ""
    hasher = hashlib.sha256(repr((model.base_id, lineage_table(lineage))).encode())
    for name, tensor in sorted(model.trainable.items()):
        hasher.update(name.encode() + tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _identified(division: Division, model: Model, run: TuningRun, pairs: Sequence[Example]) -> Division:
    """Return the division with hashes on its card: of all examples, the base weights, and what attack and rule read."""
    data = hashlib.sha256()
    for part in (division.train, division.validation, {"": division.test}):
        data.update(repr([(client, *examples) for client, examples in part.items()]).encode())
    card = {**division.card, "data_sha256": data.hexdigest(), "base_id": model.base_id}
    if pairs:
        card["attack_sha256"] = hashlib.sha256(repr(pairs).encode()).hexdigest()
    if not run.protocol.baseline and (identity := run.aggregator.identity()):
        card["aggregator"] = identity
    return replace(division, card=card)


def _knowing(division: Division, cluster: str) -> Division:
    """Return the division with what each client's records are about on its card, of what the test asks for."""
    asked = {example.tags[cluster] for example in division.test if cluster in example.tags}
    told = {client: {one.tags.get(cluster, "") for one in examples} for client, examples in division.train.items()}
    knows = {client: sorted(asked & values) for client, values in told.items()}
    return replace(division, card={**division.card, "knows": knows}) if any(knows.values()) else division


def _refuse_other_models(run: TuningRun, model: Model) -> None:
    wanted, found = run.task.trains, type(model)
    if not issubclass(found, wanted):
        raise ConfigError(
            f"task.name: task '{run.task.name}' trains a {wanted.__name__}, model '{run.model.name}' is a "
            f"{found.__name__}; choose another of the two."
        )


def refuse_dropout(model: Model, mechanism: Mechanism) -> None:
    """Refuse a model in training which one example would change what the others contribute."""
    if model.dropout and mechanism.covers().per_example:
        raise ConfigError(
            f"model: found a dropout of {model.dropout:g} with privacy of examples; allowed is 0: masks run on from "
            "one example to the next, and would let one change what the others contribute."
        )


def _check_ranks(run: TuningRun, layout: Layout) -> None:
    rank = full_rank(layout)
    if run.ranks and max(run.ranks) > rank:
        raise ConfigError(f"ranks: found {max(run.ranks)}, allowed is at most the model's rank {rank}.")
