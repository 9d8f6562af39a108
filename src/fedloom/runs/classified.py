"""Updates of a simulated run, labelled by who is malicious: what a classifier of updates is trained on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.tree import Layout, flatten
from fedloom.contracts.federated import Carrier, Job, Report, Work
from fedloom.federated.rounds import begin, train
from fedloom.federated.update_classifier import Classifier, features, trained_classifier
from fedloom.runs.attacked import refuse_several_models
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import TuningRun

__all__ = ["Labelled", "classifier_of", "labelled"]


@dataclass
class Labelled:
    """Features of rows [N, D] with who is malicious, and the layout of a row."""

    layout: Layout = field(default_factory=lambda: Layout(()))
    rows: list[Tensor] = field(default_factory=list[Tensor])
    malicious: list[bool] = field(default_factory=list[bool])


def labelled(run: TuningRun) -> Labelled:
    """Return the labelled updates of all rounds of a run, which is trained in memory and thrown away."""
    refuse_several_models(run, "classifier")
    if run.attack is None:
        raise ConfigError("attack: missing; updates are labelled in a simulation that has one.")
    ready, found = prepare(run), Labelled()
    (stage,) = ready.stages
    carrier = run.engine.resolved(stage.work, n_clients=stage.plan.clients_per_round).start(stage.work)
    start = begin(stage.plan, flatten(ready.shared).cpu())
    for _ in train(stage.plan, start, _kept(stage.work, carrier, found), stage.server):
        pass  # rows are kept on their way
    return found


def _kept(work: Work, carrier: Carrier, found: Labelled) -> Carrier:
    plan = work.plan

    def carry(jobs: Iterable[Job]) -> Iterator[Report]:
        asked = list(jobs)
        for job, report in zip(asked, carrier(asked), strict=True):
            yield report
            row_P = plan.codec.decode(report.packet, report.layout.size)
            found.layout = report.layout.named_after(plan.layout)
            found.rows.append(features(row_P[None], found.layout)[0])
            found.malicious.append(work.attacks(report.client, job.round))

    return carry


def classifier_of(found: Labelled) -> Classifier:
    """Return a classifier trained on labelled updates."""
    return trained_classifier(torch.stack(found.rows), found.malicious, found.layout)
