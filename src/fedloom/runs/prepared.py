"""A tuning run with its model and data loaded, everything checked before the first step."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from fedloom.base.errors import ConfigError
from fedloom.base.machine import device_of
from fedloom.base.tree import Layout, Tree
from fedloom.contracts.federated import Mechanism, Model, Shard
from fedloom.contracts.lineage import Lineage, lineage_table
from fedloom.data.clients import Division, cut_and_dropped, divide, encode_shards
from fedloom.evaluation.held_out import HeldOut, held_out
from fedloom.federated.ranks import full_rank
from fedloom.runs.corpus import refuse_few_texts
from fedloom.runs.guards import guards_of
from fedloom.runs.origins import Origin, origin_of
from fedloom.runs.stage import Stage, stage_of
from fedloom.runs.tuning import TuningRun

__all__ = ["Prepared", "prepare", "refuse_dropout"]


@dataclass(frozen=True)
class Prepared:
    """A run with everything loaded."""

    run: TuningRun
    model: Model
    division: Division
    shards: Mapping[str, Shard]
    counts: Mapping[str, Mapping[str, int]]
    held: tuple[HeldOut, ...]
    stages: tuple[Stage, ...]
    layout: Layout
    shared: Tree
    private: Tree
    lineage: Lineage
    """How the weights that the run starts from were trained."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run's owner should know before the first step, a line each."""
        line, warns = cut_and_dropped(self.counts)
        return (f"WARNING: {line}; raise task.max_length" if warns else line, *self.model.notes)

    @property
    def origins(self) -> dict[str, Origin]:
        """What came before the run for each guard's data."""
        names, data = {name for stage in self.stages for name in stage.plan.guards}, self.division.fingerprints
        kind = {"mechanism": self.run.privacy.name, "unit": self.run.privacy.covers().name}
        return {
            name: origin_of(
                self.lineage, **kind, data={data[name]} if name else {*data.values()}, start_data=self.run.start_data
            )
            for name in names
        }


def prepare(run: TuningRun) -> Prepared:
    """Return a run with its model and data loaded, all of it checked before the first step."""
    asked = run.evaluation
    division = divide(
        run.data,
        run.partition,
        n_clients=run.clients,
        holdout=asked.holdout,
        seed=run.seed,
        split=asked.split,
        by_text=asked.by_text(private=run.privacy.covers().private),
    )
    n_clients = len(division.train)
    if run.clients_per_round > n_clients:
        raise ConfigError(f"clients_per_round: found {run.clients_per_round}, the data have {n_clients} clients.")
    torch.set_num_threads(run.threads)
    device = device_of(run.device)
    guards = guards_of(run, {client: len(examples) for client, examples in division.train.items()})
    model = run.model.build(seed=run.seed, device=device, train=run.train)
    _refuse_other_models(run, model)
    refuse_dropout(model, run.privacy)
    division = _identified(division, model)
    if not run.privacy.covers().private:
        division = _knowing(division, asked.cluster)
    shards, counts = encode_shards(division, run.task, model)
    kept = {client: len(shard.items) for client, shard in shards.items()}
    if guards and kept != {client: len(examples) for client, examples in division.train.items()}:
        guards = guards_of(run, kept)  # what cannot be learnt from is not drawn either
    shared = {name: value for name, value in model.trainable.items() if re.search(run.protocol.shared(run.share), name)}
    if not shared and not run.protocol.baseline:
        raise ConfigError(f"share: '{run.share}' matches none of {len(model.trainable)} trained names.")
    private = {name: value for name, value in model.trainable.items() if name not in shared}
    validation = [example for examples in division.validation.values() for example in examples]
    # Without a test split all clients' held-out examples together are the questions that every model is asked.
    test = division.test or tuple(validation if asked.split == "report" else ())
    parts = {"test": test[: asked.limit or None], "validation": validation}
    sets = {name: held_out(name, part, run.task, model) for name, part in parts.items() if part}
    counts |= {f"({name})": run.task.counts(items) for name, (_, items) in sets.items()}
    layout = Layout.of_tree(shared)
    lineage = run.model.lineage()
    start = _start(model, lineage)
    own = run.as_baseline() if run.protocol.baseline else run
    groups = run.protocol.groups(shards, division.card, per_round=run.clients_per_round, steps=run.local.steps)
    stages = tuple(
        stage_of(own, group, model=model, guards=guards, layout=layout, private=private, start=start)
        for group in groups
    )
    _check_ranks(run, layout)
    if shared:
        run.aggregator.check_layout(Layout.of({"delta": shared}))
    held = tuple(part for part, _ in sets.values())
    refuse_few_texts(run.evaluation.corpus_metrics, held)
    return Prepared(run, model, division, shards, counts, held, stages, layout, shared, private, lineage)


def _start(model: Model, lineage: Lineage) -> str:
    """Return a hash of the weights that a run starts from and of their lineage; "" where they have none."""
    if not lineage:
        return ""
    hasher = hashlib.sha256(repr((model.base_id, lineage_table(lineage))).encode())
    for name, tensor in sorted(model.trainable.items()):
        hasher.update(name.encode() + tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _identified(division: Division, model: Model) -> Division:
    """Return the division with hashes of all examples and of the base weights on its card."""
    data = hashlib.sha256()
    for part in (division.train, division.validation, {"": division.test}):
        data.update(repr([(client, *examples) for client, examples in part.items()]).encode())
    return replace(division, card={**division.card, "data_sha256": data.hexdigest(), "base_id": model.base_id})


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
