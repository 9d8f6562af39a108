"""A plain Llama with one owner's adapters, arranged for reading alone: fewer and faster products, no gradients.

In float32 an adapter is added into its weight, W + (alpha / r) B A. In fewer bits a small one would be rounded away, so
it stays beside the weight. Layers that read the same states become one, adapters included: the rows of their A one
below another, their B on a diagonal. A prefix is left out: who reads has it among keys and values.
"""

import torch
from torch import Tensor, nn

from fedloom.base.tree import Tree
from fedloom.models.frozen import freeze, pack
from fedloom.models.llama import Llama
from fedloom.models.lora import LoraLinear

__all__ = ["for_reading"]

_FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.down_proj": ("mlp.down_proj",),
}


class _Beside(nn.Module):
    """A layer and an adapter [R, D], [O, R] beside it, its scale in B."""

    def __init__(self, layer: nn.Module, a_RD: Tensor, b_OR: Tensor) -> None:
        super().__init__()
        self.layer, self.a, self.b = layer, a_RD, b_OR

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + B A x."""
        return self.layer(x) + nn.functional.linear(nn.functional.linear(x, self.a), self.b)


def for_reading(module: Llama, params: Tree, scaling_K: Tensor | None) -> Llama:
    """Return a copy with the parameters of one owner in place of the module's, in memory of its own.

    `scaling_K` [1] is that owner's alpha / r over the layers' own, where it has a rank of its own.
    """
    scale = 1.0 if scaling_K is None else float(scaling_K[0])
    weights = {name: params.get(name, tensor) for name, tensor in module.named_parameters()}
    kept = {name: tensor for name, tensor in weights.items() if "_proj." not in name and ".prefix." not in name}
    beside: dict[str, tuple[Tensor, Tensor]] = {}
    for number in range(module.shape.n_layers):
        room = f"model.layers.{number}."
        for fused, parts in _FUSED.items():
            layers = [module.get_submodule(room + part) for part in parts]
            found = [_parts(layer, room + part, weights, scale) for layer, part in zip(layers, parts, strict=True)]
            kept[f"{room}{fused}.weight"] = torch.cat([weight for weight, _, _ in found])
            if any(len(a_RD) for _, a_RD, _ in found):
                diagonal = torch.block_diag(*(b_OR for _, _, b_OR in found))
                beside[room + fused] = torch.cat([a_RD for _, a_RD, _ in found]), diagonal
    made = Llama(module.shape, fused=True).filled(kept)
    freeze(made)
    pack(made)
    for name, factors in beside.items():
        made.set_submodule(name, _Beside(made.get_submodule(name), *factors))
    return made


def _parts(layer: nn.Module, name: str, weights: Tree, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's weight [O, D] and what of its adapter is to stand beside it, [R, D] and [O, R]."""
    if not isinstance(layer, LoraLinear):
        weight_OD = weights[f"{name}.weight"]
        return weight_OD, weight_OD[:0], weight_OD[:, :0]
    base_OD, a_RD, b_OR = (weights[f"{name}.{part}"] for part in ("base.weight", "lora_A", "lora_B"))
    b_OR = scale * layer.scaling * b_OR
    if base_OD.dtype == torch.float32:
        return torch.addmm(base_OD, b_OR, a_RD), a_RD[:0], b_OR[:, :0]
    return base_OD, a_RD.to(base_OD.dtype), b_OR.to(base_OD.dtype)
