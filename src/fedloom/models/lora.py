"""Low-rank adapters (Hu et al., 2021, https://arxiv.org/abs/2106.09685, eq. 3): h = W x + (alpha / r) B A x.

`install` places `LoraLinear` layers once, when a model is built; afterwards factors reach them by name through
`torch.func.functional_call`. A factor may carry a leading client axis [K, ...]: K clients then lie one after another
on the token axis in equal parts, share one pass of the frozen base, and each meets its own factors only. Or it carries
one slot per example [E, ...], all with their client's values: the pass is that of the clients, and the gradient of a
slot is that of its example.

Shapes: K clients, E examples, N tokens, T tokens of an example, D input width, O output width, R rank.

Deviations: none. A starts as `peft` starts it (Kaiming-uniform with a = sqrt 5), B at zero, both from a named seed.
Left out: adapters on embeddings, on fused expert weights and on biases.
"""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedloom.base import rng
from fedloom.base.errors import ModelError, suggest
from fedloom.base.tree import Tree
from fedloom.contracts.federated import ForwardContext
from fedloom.contracts.language import PackedBatch
from fedloom.models.low_rank import LowRank

__all__ = [
    "LoraLinear",
    "factor_names",
    "install",
    "is_transposed",
    "linear_layers",
    "lora_layers",
    "pattern",
    "place",
    "targeted_layers",
    "usual_layers",
]


class LoraLinear(nn.Module):
    """A linear layer with a low-rank addition; `base` is an `nn.Linear` or the transposed `Conv1D` of GPT-2.

    Parameters are `lora_A` [R, D] and `lora_B` [O, R] in float32, or handed in with a leading axis, either of them or
    both. The input is [..., D]; one whose tokens do not divide into K equal parts raises ModelError. The low-rank
    path computes in the dtype of the input; gradients of factors are float32.
    """

    def __init__(
        self, base: nn.Module, *, rank: int, alpha: float, dropout: float, context: ForwardContext, name: str = ""
    ) -> None:
        super().__init__()
        self.name = name
        width_in, width_out, device = _widths(base)
        self.lora_A = nn.Parameter(torch.zeros(rank, width_in, device=device))
        self.lora_B = nn.Parameter(torch.zeros(width_out, rank, device=device))
        self.base = base
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.scaling = alpha / rank
        self.context = context

    def forward(self, x: Tensor) -> Tensor:
        """Return base(x) + (alpha / r) B A x."""
        context, scaling = self.context, self.scaling
        scale = scaling if context.scaling_K is None else scaling * context.scaling_K
        # A plain layer's output belongs to nobody else; other layers may hand out a view.
        in_place = isinstance(self.base, nn.Linear)
        whose = context.batch, context.per_example, in_place
        return LowRank.apply(self.base(x), self._dropped(x), self.lora_A, self.lora_B, scale, *whose)

    def delta(self) -> Tensor:
        """Return (alpha / r) B A in float32, laid out as the base weight is."""
        delta_OD = self.scaling * (self.lora_B.detach() @ self.lora_A.detach())
        return delta_OD.T if is_transposed(self.base) else delta_OD

    def _dropped(self, x: Tensor) -> Tensor:
        batch, seeds = self.context.batch, self.context.seeds
        if not self.dropout or not (seeds or self.context.generators):
            return x
        named = (rng.generator(*seed, "layer", self.name, device=x.device) for seed in seeds)
        generators = tuple(named) or self.context.generators
        keeps_ND = torch.zeros_like(x).view(-1, x.shape[-1])
        spans = batch.spans if isinstance(batch, PackedBatch) else [(0, len(keeps_ND))]
        # A client's mask covers its own tokens only, so that it does not depend on who else is in the batch.
        for (start, size), generator in zip(spans, generators, strict=True):
            keeps_ND[start : start + size].bernoulli_(1 - self.dropout, generator=generator)
        return x * keeps_ND.view(x.shape).div_(1 - self.dropout)


def _widths(base: nn.Module) -> tuple[int, int, torch.device]:
    """Return a layer's input and output width, and where its factors lie: on the CPU where its weight is elsewhere."""
    weight = base.get_parameter("weight")
    device = torch.device("cpu") if weight.is_meta else weight.device
    if isinstance(base, nn.Linear):
        return base.in_features, base.out_features, device
    if is_transposed(base):
        return weight.shape[0], weight.shape[1], device
    raise ModelError(f"a low-rank layer on {type(base).__name__}: allowed are nn.Linear and Conv1D.")


def is_transposed(layer: nn.Module) -> bool:
    """Return whether a layer is the `Conv1D` of GPT-2, a linear layer whose weight is [D, O]."""
    kind = type(layer)
    return f"{kind.__module__}.{kind.__name__}" == "transformers.pytorch_utils.Conv1D"


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return all linear layers by name."""
    named = module.named_modules()
    return {name: layer for name, layer in named if isinstance(layer, nn.Linear) or is_transposed(layer)}


def lora_layers(module: nn.Module) -> dict[str, LoraLinear]:
    """Return all low-rank layers by name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLinear)}


def factor_names(module: nn.Module) -> list[str]:
    """Return the names of all factors, A before B, in the order of the module's parameters."""
    return [f"{name}.{factor}" for name in lora_layers(module) for factor in ("lora_A", "lora_B")]


def install(
    module: nn.Module,
    *,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float,
    seed: int,
    context: ForwardContext,
) -> None:
    """Freeze the module and replace its target layers by `LoraLinear`, in place.

    `targets` are names of linear layers or ends of names (`q_proj`, `self_attn.q_proj`); empty means the usual ones.
    Raises ModelError for a target that matches no linear layer. Tied weights stay tied: the base layer keeps its
    parameters.
    """
    module.requires_grad_(False)
    for name, base in targeted_layers(module, targets).items():
        layer = LoraLinear(base, rank=rank, alpha=alpha, dropout=dropout, context=context, name=name)
        start_RD = torch.empty(layer.lora_A.shape)  # drawn on the CPU: the same on every device
        nn.init.kaiming_uniform_(start_RD, a=math.sqrt(5), generator=rng.generator(seed, "lora", name))
        place(layer, {"lora_A": start_RD})
        module.set_submodule(name, layer.requires_grad_(False))


def pattern(name: str) -> str:
    """Return what the name of a layer has in common with those of its like in other blocks.

    >>> pattern("model.layers.12.mlp.up_proj")
    'model.layers.*.mlp.up_proj'
    """
    return re.sub(r"\d+", "*", name)


def targeted_layers(module: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Return the linear layers whose names are, or end with, one of the targets; the usual ones if there are none."""
    if not targets:
        return usual_layers(module)
    layers = linear_layers(module)
    for target in targets:
        if not any(_ends_with(name, target) for name in layers):
            ends = suggest(target, {name.rpartition(".")[2] for name in layers})
            raise ModelError(f"lora_targets: '{target}' matches no linear layer. {ends}")
    return {name: layer for name, layer in layers.items() if any(_ends_with(name, target) for target in targets)}


def usual_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of the blocks, which leaves out embeddings and the output head.

    The blocks are a list of modules in every decoder. A layer that is an `nn.Linear` by descent alone and computes
    something else, as a router does that gives a tuple, is left out: it is asked.
    """
    lists = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, nn.ModuleList))
    layers = linear_layers(module)
    found = {name: layer for name, layer in layers.items() if name.startswith(lists) and _is_plain(layer)}
    if not found:
        ends = suggest("", {name.rpartition(".")[2] for name in layers})
        raise ModelError(f"lora_targets: no linear layer lies in the model's blocks; name some. {ends}")
    return found


def _is_plain(layer: nn.Module) -> bool:
    quantised = type(layer).__module__.startswith("bitsandbytes")
    if quantised or type(layer).forward is nn.Linear.forward or not isinstance(layer, nn.Linear):
        return True
    x_ND = torch.linspace(-1, 1, 2 * layer.in_features, device=layer.weight.device, dtype=layer.weight.dtype)
    x_ND = x_ND.view(2, layer.in_features)
    try:
        with torch.no_grad():
            found_NO = layer(x_ND)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
    right_NO = nn.functional.linear(x_ND, layer.weight, layer.bias)
    same = isinstance(found_NO, Tensor) and found_NO.shape == right_NO.shape
    return same and bool(torch.allclose(found_NO, right_NO, rtol=1e-2, atol=1e-3))


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def place(module: nn.Module, tensors: Tree) -> None:
    """Copy tensors into the module's parameters of the same names; only for a module that is being built."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            module.get_parameter(name).copy_(tensor)
