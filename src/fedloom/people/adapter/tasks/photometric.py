"""Learning shape from photographs alone: each is told from the others of the same person."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from fedloom.base.errors import DataError
from fedloom.base.mean import LossSum, Mean
from fedloom.base.plugin import AtLeast, Positive, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Batch, Model, Prediction, Task
from fedloom.people.adapter.examples import KnownPerson, View
from fedloom.people.adapter.models.person_field import FieldModel
from fedloom.people.field import Field
from fedloom.people.measured import surface_scores
from fedloom.people.photometric import Bundle, Weights, bundle_of, losses

__all__ = ["Photometric"]

_ASKED = 1_000_003
"""Where the places of bundles begin that a person is asked by."""


@dataclass(frozen=True, kw_only=True)
class _Bundles(Batch):
    bundles: tuple[Bundle, ...]


@dataclass(frozen=True)
class _Person:
    """A held-out person: a bundle of each photograph, and the surface where it is known."""

    bundles: tuple[Bundle, ...]
    known: KnownPerson | None = None


@plugin("photometric")
class Photometric(Task):
    """Colour and silhouette of pixels that the field has not been shown, from the other photographs of the person."""

    learns: ClassVar[tuple[type[Any], ...]] = (View,)
    trains: ClassVar[type[Model]] = FieldModel
    tells: ClassVar[tuple[str, ...]] = (
        *("loss", "colour", "silhouette"),
        *("gain_cm", "chamfer_cm", "acc_cm", "comp_cm", "hull_chamfer_cm", "hull_acc_cm", "hull_comp_cm", "floor_cm"),
    )

    rays: AtLeast = 384
    """Pixels of an example."""
    weights: Weights = field(default_factory=Weights)
    cell_m: Positive = 0.015
    """Side of the cells in which a held-out person's surface is looked for, metres."""

    def encode(self, example: View | KnownPerson, model: FieldModel) -> Bundle | _Person:
        """Return a photograph's pixels; of a held-out person a bundle of every photograph."""
        if isinstance(example, View):
            return bundle_of(example.scene, example.target, example.place, self.rays)
        views = range(example.scene.n_views)
        return _Person(tuple(bundle_of(example.scene, view, _ASKED, self.rays) for view in views), example)

    def size(self, item: Bundle | _Person) -> int:
        """Return the numbers of the photographs that pass the encoder."""
        bundle = item if isinstance(item, Bundle) else item.bundles[0]
        return 4 * len(bundle.sources) * bundle.scene.mask_VHW[0].numel()

    def targets(self, item: Bundle | _Person) -> int:
        """Return the pixels that show the person, by which clients count."""
        bundles = [item] if isinstance(item, Bundle) else item.bundles
        shown = [one.scene.mask_VHW[one.target][tuple(one.pixels_N2.T)] > 0.5 for one in bundles]
        return int(sum(part.sum() for part in shown))

    def counts(self, items: Sequence[Any]) -> dict[str, int]:
        """Return how many there are; none is cut."""
        return {"examples": len(items), "kept": len(items), "truncated": 0}

    def collate(self, parts: Sequence[Sequence[Bundle]], model: FieldModel) -> _Bundles:
        """Return the bundles of each client, one after another."""
        owners = [place for place, part in enumerate(parts) for _ in part]
        return _Bundles(
            client_E=torch.tensor(owners, device=model.device), bundles=tuple(one for part in parts for one in part)
        )

    def loss(self, model: FieldModel, params: Tree, batch: _Bundles) -> LossSum:
        """Return the loss of each bundle, a mean over its rays."""

        def asked(here: Field) -> Tensor:
            return torch.stack([losses(here, bundle, self.weights).total for bundle in batch.bundles])

        total_B = functional_call(model.field, params, (asked,))
        return LossSum(total_B, torch.ones_like(total_B))

    def scores(
        self, model: FieldModel, params: Tree, parts: Sequence[Sequence[Bundle | _Person]]
    ) -> list[list[dict[str, Mean]]]:
        """Return the loss of each held-out example, and how far a known person's surface is off, by the hull too."""
        if len(parts) != 1:
            raise DataError("a field scores one model at a time.")

        def asked(here: Field) -> list[dict[str, float]]:
            return [self._told(here, item) for item in parts[0]]

        return [[{n: Mean(v, 1.0) for n, v in one.items()} for one in functional_call(model.field, params, (asked,))]]

    def _told(self, here: Field, item: Bundle | _Person) -> dict[str, float]:
        bundles = (item,) if isinstance(item, Bundle) else item.bundles
        many = [losses(here, bundle, self.weights) for bundle in bundles]
        shown = {"loss": "total", "colour": "colour", "silhouette": "mask"}
        told = {name: sum(float(vars(one)[part]) for one in many) / len(many) for name, part in shown.items()}
        known = None if isinstance(item, Bundle) else item.known
        return told | (surface_scores(here, known.scene, known.surface, self.cell_m) if known else {})

    def predict(
        self, model: FieldModel, params: Tree, parts: Sequence[Sequence[Any]], *, max_new_tokens: int
    ) -> list[list[Prediction]]:
        """Refuse: nothing is written."""
        raise DataError(
            "evaluation.metrics: a field writes no answers, allowed is []; its scores are those of the task."
        )
