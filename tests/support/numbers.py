"""Learning without any text: a line through numbers, as an example kind, a source, a model family and a task.

Named in a run file by `plugins = ["support.numbers"]`; everything else of the package is used as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.func import functional_call

from fedloom.base import rng
from fedloom.base.mean import LossSum, Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.federated import ModelFamily, Source, Task
from fedloom.contracts.model import Batch, ForwardContext, Model, Prediction

WIDTH = 3
TRUE = (1.5, -2.0, 0.5)
TABLE = {
    "plugins": ["support.numbers"],
    "model": {"name": "line"},
    "task": "regress",
    "data": {"name": "points"},
    "rounds": 4,
    "local": {"steps": 3, "batch": 4, "lr": 0.1, "optimiser": "sgd"},
    "evaluation": {"metrics": [], "resamples": 20},
}
"""A short run of all of these."""


@dataclass(frozen=True, slots=True)
class Point:
    """Some numbers and what they come to."""

    inputs: tuple[float, ...]
    target: float
    tags: Mapping[str, str] = field(default_factory=dict)

    prompt = ()
    text = ""

    @property
    def key(self) -> str:
        return repr(self.inputs)

    @property
    def reference(self) -> str:
        return str(self.target)


@plugin("points")
class Points(Source):
    """Noisy points of clients whose inputs lie apart."""

    n_clients: int = 4
    records: int = 12

    def load(self):
        train = [self._point(f"c{k}", i) for k in range(self.n_clients) for i in range(self.records + k)]
        return {"train": train, "test": [self._point("test", i) for i in range(10)]}

    def brings_in(self) -> str:
        return ""

    def _point(self, client: str, index: int) -> Point:
        draw = rng.python_random("points", client, index)
        inputs = tuple(draw.gauss(0, 1) for _ in range(WIDTH))
        target = sum(a * b for a, b in zip(inputs, TRUE, strict=True)) + draw.gauss(0, 0.1)
        return Point(inputs, target, {} if client == "test" else {"client": client})


@plugin("line")
class Line(ModelFamily):
    """A linear map from numbers to one."""

    def identity(self) -> str:
        return "line"

    def build(self, *, seed, device, train=None):
        module = nn.Linear(WIDTH, 1).to(device)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=rng.generator(seed, "line", name)))
        module.requires_grad_(False)
        trainable = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        return Model(module=module, trainable=trainable, context=ForwardContext(), base_id="line", stackable=False)

    def save(self, model, params, folder):
        from pathlib import Path

        from safetensors.torch import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous().cpu() for name, tensor in params.items()}, f"{folder}/line.safetensors")


@dataclass(frozen=True, kw_only=True)
class PointBatch(Batch):
    """Points of clients, one slot each."""

    inputs_ED: torch.Tensor
    target_E: torch.Tensor


@plugin("regress")
class Regress(Task):
    """Squared error."""

    learns = (Point,)
    trains = Model
    tells = ("loss",)

    def encode(self, example, model):
        return torch.tensor([*example.inputs, example.target])

    def size(self, item):
        return len(item)

    def targets(self, item):
        return 1

    def counts(self, items):
        return {"examples": len(items), "kept": len(items), "truncated": 0}

    def collate(self, parts, model):
        rows = torch.stack([item for part in parts for item in part]).to(model.device)
        owner = torch.tensor([k for k, part in enumerate(parts) for _ in part], device=model.device)
        return PointBatch(client_E=owner, inputs_ED=rows[:, :-1], target_E=rows[:, -1])

    def alike(self, parts, model):
        if len({len(part) for part in parts}) > 1:
            return None
        return [self.collate([part], model) for part in parts]

    def loss(self, model, params, batch):
        found_E = functional_call(model.module, params, (batch.inputs_ED,)).squeeze(-1)
        total_E = (found_E - batch.target_E) ** 2
        return LossSum(total_E, torch.ones_like(total_E))

    def scores(self, model, params, parts):
        found = []
        for k, part in enumerate(parts):
            own = params if len(parts) == 1 else {name: tensor[k] for name, tensor in params.items()}
            losses = self.loss(model, own, self.collate([part], model)).total_B.tolist()
            found.append([{"loss": Mean(loss, 1.0)} for loss in losses])
        return found

    def predict(self, model, params, parts, *, max_new_tokens):
        return [[Prediction("", 0) for _ in part] for part in parts]
