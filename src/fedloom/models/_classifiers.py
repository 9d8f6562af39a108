"""What families of classifiers share: a module of torch, trained whole, weights drawn by name from the run's seed."""

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedloom.base.config import table_of
from fedloom.base.files import atomic_folder
from fedloom.base.plugin import AtLeast
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Model, ModelFamily
from fedloom.contracts.labelled import ClassifierModel
from fedloom.contracts.model import ForwardContext
from fedloom.models.side_by_side import runs_side_by_side
from fedloom.models.starting import kept_of, start_by_name, trainable_of

__all__ = ["Classifier"]


class Classifier(ModelFamily):
    """A module that gives a score for each class, every parameter of it trained."""

    inputs: tuple[AtLeast, ...]
    classes: AtLeast

    @abstractmethod
    def module(self) -> nn.Module:
        """Return the module, from inputs [E, ...] to scores [E, classes]."""

    def identity(self) -> str:
        """Return the settings: the weights follow from them and the run's seed."""
        return json.dumps(table_of(self), sort_keys=True)

    def build(self, *, seed: int, device: torch.device, train: str | None = None) -> ClassifierModel:
        """Return the model with weights drawn from U(-1 / sqrt(fan in), 1 / sqrt(fan in)), norms at 1 and 0.

        `train` is a pattern found in the names to train; left out: all. One that finds none raises ConfigError.
        """
        module = self.module()
        start_by_name(module, seed, self.name)
        module.eval().requires_grad_(False).to(device)
        return ClassifierModel(
            module=module,
            trainable=trainable_of(module, train),
            context=ForwardContext(),
            base_id=f"{self.name} sha256:{_sha256(module)}",
            stackable=runs_side_by_side(module),
            examples_stack=False,
            flops=_flops(module, self.inputs) / math.prod(self.inputs),
            inputs=self.inputs,
            n_classes=self.classes,
            settings=table_of(self),
        )

    def save(self, model: Model, params: Tree, folder: str) -> None:
        """Write all parameters as safetensors, and the settings that `build` takes as JSON."""
        settings: Mapping[str, Any] = table_of(self)
        with atomic_folder(Path(folder)) as new:
            (new / "model.safetensors").write_bytes(save(kept_of(model.module, params)))
            (new / "classifier.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _flops(module: nn.Module, inputs: tuple[int, ...]) -> int:
    """Return the floating-point operations of one example on its way forwards."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, *inputs, device=next(module.parameters()).device))
    return counter.get_total_flops()


def _sha256(module: nn.Module) -> str:
    hasher = hashlib.sha256()
    for name, tensor in module.named_parameters():
        hasher.update(name.encode() + tensor.detach().numpy().tobytes())
    return hasher.hexdigest()
