"""Training on generated examples at the server, between rounds: the clients' data and protocol stay as they are.

The strategy `server` of FedGC (https://arxiv.org/abs/2312.05807, named in its reviews alone). The budget follows the
model: one half is dealt evenly to the classes, the other in proportion to the loss that the model has on the first half
of each class.

Deviations: nothing of the published strategy is known but its name; adapting the budget is this package's own.

    refined/AT/manifest.jsonl    a line for each sample: class, prompt, seed
    refined/AT/cost.json         seconds, samples, tokens, bytes, size of the model, peak memory
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.files import write_atomic
from fedloom.base.mean import Mean, summed
from fedloom.base.plugin import AtLeast, default, plugin
from fedloom.completers.answer_file import write_cost
from fedloom.contracts.examples import Example
from fedloom.contracts.generation import Generator, Place, Prompter
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.model import Model
from fedloom.contracts.stages import Refined, Refinement, Trained
from fedloom.federated.alone import tuned_alone
from fedloom.synthesis.allocation import apportioned
from fedloom.synthesis.ordering import Cost, Ordered, Ordering, checked, published

__all__ = ["OnGenerated"]


@plugin("on_generated")
class OnGenerated(Refinement):
    """Samples of each class by a generator, from words alone, and a tuning on them."""

    generator: Generator = field(default_factory=default(Generator, "gaussian"))
    """Who makes them."""
    labels: tuple[str, ...] = ()
    """The classes of the task; left out: those of the public examples."""
    by: str = "label"
    """Tag of the class."""
    total: AtLeast = 100
    """Samples each time."""
    adapt: bool = True
    """Whether one half of them goes where the model's loss is; if not, all classes get the same."""
    prompts: Prompter = field(default_factory=default(Prompter, "multiple"))
    """The words."""
    local: LocalSettings = field(default_factory=LocalSettings)
    """How the model is tuned on them, as clients are tuned on theirs."""
    rounds: AtLeast = 1
    """Times that `local.steps` are taken."""

    def check(self) -> None:
        """Refuse a class named twice."""
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError("labels: found one twice, allowed is each once.")

    def identity(self) -> str:
        """Return those of generator and words."""
        return json.dumps([self.generator.identity(), self.prompts.identity()])

    def require(self, model: Model, task: Any, shared: Collection[str]) -> None:
        """Refuse parts kept by clients, and a task that learns nothing that the generator makes."""
        if set(shared) != set(model.trainable):
            raise ConfigError("refine: 'on_generated' tunes the whole trained model; allowed is share = '.*'.")
        if not set(self.generator.makes) & set(task.learns):
            raise ConfigError(
                f"refine: generator '{self.generator.name}' makes nothing that task '{task.name}' learns; take another."
            )

    def __call__(self, trained: Trained) -> Refined:
        """Return the parameters tuned on the samples; none is refused with DataError."""
        start_s, seed = time.monotonic(), rng.seed_of(trained.seed, "on_generated", trained.round) % 2**31
        place = Place(trained.public, trained.folder)
        labels = published(self.labels, trained.public, self.by)
        first = self.total - self.total // 2 if self.adapt else self.total
        asked, samples, tokens = self._made(self._dealt(first, labels, {}), seed, place)
        if self.adapt:
            more = self._made(self._dealt(self.total - first, labels, self._losses(trained, samples)), seed + 1, place)
            asked, samples, tokens = [*asked, *more[0]], [*samples, *more[1]], tokens + more[2]
        items = [trained.task.encode(one, trained.model) for one in samples if one is not None]
        if not items:
            raise DataError(f"generator '{self.generator.name}': returned nothing that can be used; ask another one.")
        params, tuned = tuned_alone(
            trained.model, trained.task, trained.params, items, self.local, rounds=self.rounds, seed=seed
        )
        _write_manifest(trained.folder / "manifest.jsonl", asked)
        cost = Cost.of(samples, tokens, self.generator, place)
        write_cost(trained.folder / "cost.json", cost, time.monotonic() - start_s)
        counts = {"samples": float(len(asked)), "came": float(len(items)), "tokens": float(tokens)}
        return Refined(params, counts, scores={"first_loss": tuned[0], "last_loss": tuned[-1]})

    def _dealt(self, total: int, labels: Sequence[str], losses: Mapping[str, Mean]) -> dict[str, int]:
        """Return how many samples of each class: by its loss, and where none has one the same."""
        weights = [Fraction(losses[label].value) if label in losses else Fraction(0) for label in labels]
        return dict(zip(labels, apportioned(total, weights), strict=True))

    def _made(
        self, amounts: Mapping[str, int], seed: int, place: Place
    ) -> tuple[list[Ordered], Sequence[Example | None], int]:
        ordering = Ordering(prompter=self.prompts, by=self.by)
        asked = list(ordering.ordered(amounts, (), seed, "", place))
        found = self.generator([one.request for one in asked], place)
        return asked, checked(found.samples, asked, place.public, self.generator, self.by), found.tokens

    def _losses(self, trained: Trained, samples: Sequence[Example | None]) -> dict[str, Mean]:
        """Return the model's loss on the samples of each class."""
        came = [one for one in samples if one is not None]
        items = [trained.task.encode(one, trained.model) for one in came]
        with torch.no_grad():
            (told,) = trained.task.scores(trained.model, trained.params, [items])
        return summed((one.tags[self.by], scores["loss"]) for one, scores in zip(came, told, strict=True))


def _write_manifest(path: Path, asked: Sequence[Ordered]) -> None:
    lines = [{"class": one.request.label, "prompt": one.request.prompt, "seed": one.request.seed} for one in asked]
    write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
