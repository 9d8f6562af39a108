"""A linear classifier of updates: what it looks at, how it is trained on labelled ones, and its file.

What it looks at is the change of the first low-rank layer's B, scaled to length 1: all clients start a round from the
same A, so these numbers mean the same in all rows. Training is that of Safe-FedLLM (https://arxiv.org/abs/2601.07177):
logistic loss with both classes weighing alike, AdamW at 0.01 with a weight decay of 2.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.files import write_atomic
from fedloom.base.tree import Layout

__all__ = ["Classifier", "features", "first_b", "read_classifier", "trained_classifier", "write_classifier"]

_B = ".lora_B"
_STEPS = 300


@dataclass(frozen=True)
class Classifier:
    """p(malicious) = sigmoid(weight . x + bias)."""

    weight_D: Tensor
    bias: float
    name: str
    """The parameter that it looks at."""
    shape: tuple[int, ...]

    def check(self, layout: Layout) -> None:
        """Refuse rows whose first B is another; ConfigError."""
        name, shape, _ = first_b(layout)
        if (name, shape) != (self.name, self.shape):
            raise ConfigError(
                f"aggregator: the classifier was trained on updates of '{self.name}' {self.shape}, these have '{name}' "
                f"{shape}; train it anew on a run with this model and adapter."
            )

    def probabilities(self, x_ND: Tensor) -> Tensor:
        """Return the probability [N] of each row to be malicious."""
        return (x_ND @ self.weight_D.double() + self.bias).sigmoid()


def first_b(layout: Layout) -> tuple[str, tuple[int, ...], slice]:
    """Return name, shape and place in the row of the first B; ConfigError where there is none."""
    spans = [(name, shape, span) for slot, name, shape, span in layout.spans() if slot == "delta" and name.endswith(_B)]
    if not spans:
        raise ConfigError(f"aggregator: the rows hold no '{_B}', which a classifier of updates looks at; train one.")
    return spans[0]


def features(rows_NP: Tensor, layout: Layout) -> Tensor:
    """Return what is looked at of each row [N, D]: the change of the first B, of length 1."""
    _, _, span = first_b(layout)
    x_ND = rows_NP[:, span].double()
    return x_ND / x_ND.norm(dim=1, keepdim=True).clamp(min=1e-300)


def trained_classifier(x_ND: Tensor, malicious_N: Sequence[bool], layout: Layout) -> Classifier:
    """Return a classifier of labelled features; DataError unless both kinds are among them."""
    label_N = torch.tensor(malicious_N, dtype=torch.float64)
    n_bad, n_good = int(label_N.sum()), int((1 - label_N).sum())
    if not n_bad or not n_good:
        raise DataError(f"classifier: found {n_bad} malicious and {n_good} benign rows; allowed are some of both.")
    linear = nn.Linear(x_ND.shape[1], 1, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    balance = torch.tensor(n_good / n_bad, dtype=torch.float64)
    optimiser = torch.optim.AdamW(linear.parameters(), lr=0.01, weight_decay=2.0)
    with torch.enable_grad():
        for _ in range(_STEPS):
            optimiser.zero_grad()
            logits_N = linear(x_ND)[:, 0]
            nn.functional.binary_cross_entropy_with_logits(logits_N, label_N, pos_weight=balance).backward()
            optimiser.step()
    name, shape, _ = first_b(layout)
    return Classifier(linear.weight.detach()[0], float(linear.bias.detach()), name, shape)


def write_classifier(path: Path, classifier: Classifier) -> None:
    """Write a classifier as JSON."""
    table = {"name": classifier.name, "shape": classifier.shape, "bias": classifier.bias}
    write_atomic(path, json.dumps(table | {"weight": classifier.weight_D.tolist()}))


def read_classifier(path: Path) -> Classifier:
    """Return the classifier in a file; MissingFileError where there is none, DataError for any other file."""
    if not path.is_file():
        raise MissingFileError(f"aggregator.file: {path}: no such file; `fedloom classifier RUN.toml` writes one.")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        weight_D = torch.tensor(told["weight"], dtype=torch.float64)
        shape = tuple(map(int, told["shape"]))
        if weight_D.shape != (math.prod(shape),) or not torch.isfinite(weight_D).all():
            raise ValueError(f"weights of shape {tuple(weight_D.shape)} for a parameter of shape {shape}")
        return Classifier(weight_D, float(told["bias"]), str(told["name"]), shape)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"aggregator.file: {path}: is no classifier of updates ({error}); train one anew.") from error
