"""Differentially private steps as Opacus takes them (hooks, ghost clipping), by a loop over examples, and without DP.

All on the same LoRA model by `peft`, with padded batches as every `transformers` user has them. The loss of an example
is the mean over its supervised tokens, so that it depends on no other example.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

from benchmarks._common import Settings
from benchmarks._ours import RATE
from benchmarks._shapes import Shape
from benchmarks._trainers import PlainClient

__all__ = ["MAKERS", "padded_batch"]

CLIP, NOISE = 1.0, 1.0
Batch = dict[str, Tensor]
Step = Callable[[], None]


def padded_batch(client: PlainClient) -> Batch:
    """Return all examples of the first client as one padded batch."""
    rows = [client.encode(record) for record in next(iter(client.records.values()))]
    batch = client.collate(rows)
    positions_BT = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"]).contiguous()
    return {key: value.to(client.settings.device) for key, value in {**batch, "position_ids": positions_BT}.items()}


def losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of each example."""
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")}
    logits_BTV = model(**inputs, use_cache=False).logits[:, :-1].float()
    labels_BT = batch["labels"][:, 1:]
    losses_BT = functional.cross_entropy(logits_BTV.transpose(1, 2), labels_BT, reduction="none", ignore_index=-100)
    return losses_BT.sum(dim=1) / (labels_BT != -100).sum(dim=1)


def _plain(client: PlainClient, batch: Batch) -> Step:
    optimiser = _adamw(client.model)

    def step() -> None:
        losses(client.model, batch).mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def _hooks(client: PlainClient, batch: Batch) -> Step:
    model = GradSampleModule(client.model.train(), loss_reduction="mean")
    optimiser = DPOptimizer(
        _adamw(client.model), noise_multiplier=NOISE, max_grad_norm=CLIP, expected_batch_size=len(batch["labels"])
    )

    def step() -> None:
        losses(model, batch).mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def _ghost(client: PlainClient, batch: Batch) -> Step:
    model = GradSampleModuleFastGradientClipping(client.model.train(), max_grad_norm=CLIP, use_ghost_clipping=True)
    optimiser = DPOptimizerFastGradientClipping(
        _adamw(client.model), noise_multiplier=NOISE, max_grad_norm=CLIP, expected_batch_size=len(batch["labels"])
    )

    def step() -> None:
        DPTensorFastGradientClipping(model, optimiser, losses(model, batch), loss_reduction="mean").backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def _loop(client: PlainClient, batch: Batch) -> Step:
    """One backward pass for each example, without padding."""
    optimiser = _adamw(client.model)
    parameters = [parameter for parameter in client.model.parameters() if parameter.requires_grad]
    lengths = batch["attention_mask"].sum(dim=1).tolist()

    def step() -> None:
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for number, length in enumerate(lengths):
            one = {key: value[number : number + 1, :length] for key, value in batch.items()}
            gradients = torch.autograd.grad(losses(client.model, one).sum(), parameters)
            norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
            scale = float((CLIP / norm).clamp(max=1))
            for total, gradient in zip(sums, gradients, strict=True):
                total.add_(gradient, alpha=scale)
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total.add_(torch.randn_like(total), alpha=NOISE * CLIP).div_(len(lengths))
        optimiser.step()

    return step


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=RATE)


_STEPS = {
    "peft without DP": _plain,
    "Opacus hooks": _hooks,
    "Opacus ghost clipping": _ghost,
    "loop over examples": _loop,
}


def _maker(name: str) -> Callable[[Shape, Path, Settings], Step]:
    def make(shape: Shape, folder: Path, settings: Settings) -> Step:
        client = PlainClient(shape, folder, settings, checkpointing=False)
        return _STEPS[name](client, padded_batch(client))

    return make


MAKERS = {name: _maker(name) for name in _STEPS}
"""How to make one step of each side, from the shape, a folder and the settings."""
