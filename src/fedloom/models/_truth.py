"""What transformers' own forward pass gives for each example alone: losses, and gradients of what is trained.

An adapter is added into the weights here, W + (alpha / r) B A, and the gradients of its factors follow from that of the
weight: dB = (alpha / r) dW A^T, dA = (alpha / r) B^T dW. Nothing of the adapters' own code is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedloom.base import rng
from fedloom.base.errors import ModelError
from fedloom.base.tree import Tree
from fedloom.contracts.chunked_loss import token_loss
from fedloom.contracts.language import Encoded
from fedloom.models._twin import TROUBLE, Twin
from fedloom.models.lora import is_transposed, linear_layers, pattern

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ALPHA", "RANK", "Embedding", "Truth", "example"]

RANK, ALPHA = 2, 4.0
_SCALE = ALPHA / RANK


def example(length: int, vocabulary: int, *names: str | int) -> Encoded:
    """Return an example of random tokens whose last two thirds are supervised."""
    tokens_T = torch.randint(3, vocabulary, (length,), generator=rng.generator("twin", length, *names))
    return Encoded(tokens_T.int(), torch.arange(length) >= length // 3)


class Embedding(TorchFunctionMode):
    """Adds a tensor of zeros to what the input embedding gives, so that a gradient by each token can be taken.

    `params` are tensors that take the place of the module's own.
    """

    def __init__(self, module: "PreTrainedModel", params: Tree) -> None:
        super().__init__()
        own = module.get_input_embeddings().get_parameter("weight")
        names = [name for name, parameter in module.named_parameters() if parameter is own]
        self._weights = {weight.data_ptr() for weight in (own, *(params[name] for name in names if name in params))}
        self.leaf: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and let the first look-up in the embedding pass the tensor."""
        out = func(*args, **(kwargs or {}))
        if self.leaf is not None or func is not functional.embedding or args[1].data_ptr() not in self._weights:
            return out
        self.leaf = torch.zeros_like(out, requires_grad=True)
        return out + self.leaf


@dataclass(frozen=True)
class Truth:
    """A twin with its own attention, and the examples of two clients."""

    twin: Twin
    module: "PreTrainedModel"
    attention: str
    parts: tuple[tuple[Encoded, ...], ...]
    used: frozenset[str]
    """Patterns of the linear layers that take part in a loss."""

    @classmethod
    def of(cls, twin: Twin) -> "Truth":
        """Return the truth about a twin.

        Raises what its code raises where it cannot run, ModelError if it looks ahead.
        """
        module, attention = _built(twin)
        first, second, third = (max(4, twin.end * share // 32) for share in (14, 29, 21))
        examples = [example(length, twin.vocabulary) for length in (first, second, third)]
        made = cls(twin, module, attention, ((examples[0], examples[1]), (examples[2],)), frozenset())
        made._refuse_looking_ahead()
        layers = made.layers
        weights = {f"{name}.weight": layer.get_parameter("weight").clone() for name, layer in layers.items()}
        weights = {name: weight.requires_grad_() for name, weight in weights.items()}
        total = torch.cat([made.losses(weights, item) for item in examples]).sum()
        slopes: Any = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        used = frozenset(pattern(name) for name, slope in zip(layers, slopes, strict=True) if slope is not None)
        return cls(twin, module, attention, made.parts, used)

    @cached_property
    def layers(self) -> dict[str, nn.Module]:
        """The linear layers by name."""
        return linear_layers(self.module)

    def _refuse_looking_ahead(self) -> None:
        item = self.parts[0][1]
        with Embedding(self.module, {}) as watched:
            losses_S = self.losses({}, item)
        if watched.leaf is None or not losses_S.requires_grad:
            return
        (slope,) = torch.autograd.grad(losses_S[0], watched.leaf)
        by_token_T = slope.abs().flatten(0, -2).sum(-1)
        ahead = int(item.supervised_T.int().argmax())  # the first loss may see the tokens before this one
        if by_token_T.numel() == len(item.tokens_T) and float(by_token_T[ahead:].max()) > 1e-6 * float(
            by_token_T.max()
        ):
            raise ModelError(
                "it looks at later tokens; allowed are models that predict the next token from those before"
            )

    def losses(self, weights: Tree, item: Encoded) -> Tensor:
        """Return the losses [S] of an example alone, with some weights replaced."""
        inputs = {"input_ids": item.tokens_T.long()[None], "use_cache": False}
        tied = any(name.removesuffix(".weight") not in self.layers for name in weights)
        logits_TV = functional_call(self.module, weights, kwargs=inputs, tie_weights=tied).logits[0]
        asked_S = item.supervised_T[1:].nonzero().squeeze(1)
        return token_loss(logits_TV[asked_S], item.tokens_T.long()[asked_S + 1])

    def factors(self, names: Sequence[str], client: int) -> Tree:
        """Return a client's factors of adapters on the named layers, by the names of an installed adapter."""
        layers, made = self.layers, Tree()
        for name in names:
            weight = layers[name].get_parameter("weight")
            width_out, width_in = weight.T.shape if is_transposed(layers[name]) else weight.shape
            for factor, shape in (("lora_A", (RANK, width_in)), ("lora_B", (width_out, RANK))):
                draw = rng.generator("twin", client, name, factor)
                made[f"{name}.{factor}"] = 0.1 * torch.randn(shape, generator=draw)
        return made

    def whole(self, client: int) -> Tree:
        """Return a client's weights of the whole model."""
        parameters = dict(self.module.named_parameters())
        draws = {name: rng.generator("twin", client, name) for name in parameters}
        return {n: p + 0.02 * torch.randn(p.shape, generator=draws[n]) for n, p in parameters.items()}

    def _weights(self, params: Tree) -> Tree:
        """Return the weights to replace: those of whole models, or each adapted one with its adapter added."""
        layers = self.layers
        adapted = [name.removesuffix(".lora_A") for name in params if name.endswith(".lora_A")]
        merged = {f"{name}.weight": _merged(layers[name], name, params) for name in adapted}
        return {name: weight.detach() for name, weight in (merged or params).items()}

    def right_losses(self, params: Tree, part: Sequence[Encoded]) -> Tensor:
        """Return the losses [S] of a client's examples, one after another."""
        weights = self._weights(params)
        with torch.no_grad():
            return torch.cat([self.losses(weights, item) for item in part])

    def right(self, params: Tree, part: Sequence[Encoded]) -> tuple[Tensor, Tree]:
        """Return those losses, and the gradient of their sum by factors or whole weights."""
        weights = {name: weight.requires_grad_() for name, weight in self._weights(params).items()}
        losses_S = torch.cat([self.losses(weights, item) for item in part])
        slopes = torch.autograd.grad(losses_S.sum(), list(weights.values()), allow_unused=True, materialize_grads=True)
        by_name = dict(zip(weights, slopes, strict=True))
        layers, found = self.layers, Tree()
        for name in params:
            layer, _, factor = name.rpartition(".")
            if factor not in ("lora_A", "lora_B"):
                found[name] = by_name[name]
                continue
            slope = by_name[f"{layer}.weight"]
            slope_OD = slope.T if is_transposed(layers[layer]) else slope
            a_RD, b_OR = params[f"{layer}.lora_A"], params[f"{layer}.lora_B"]
            found[name] = _SCALE * (b_OR.T @ slope_OD if factor == "lora_A" else slope_OD @ a_RD.T)
        return losses_S.detach(), found

    def ends(self) -> bool:
        """Return whether the model fails beyond its positions, or depends there on what it has read before."""
        longer = [example(self.twin.end + more, self.twin.vocabulary) for more in (9, 21, 9)]
        try:
            with torch.no_grad():
                before, _, after = [self.losses({}, item) for item in longer]
        except TROUBLE:
            return True
        return not torch.equal(before, after)


def _built(twin: Twin) -> "tuple[PreTrainedModel, str]":
    """Return the module with the attention that is written out, or with the fused one where there is no other."""
    try:
        return twin.build("eager"), "eager"
    except TROUBLE as error:
        try:
            return twin.build("sdpa"), "sdpa"
        except TROUBLE:
            raise error from None


def _merged(layer: nn.Module, name: str, params: Mapping[str, Tensor]) -> Tensor:
    delta_OD = _SCALE * (params[f"{name}.lora_B"] @ params[f"{name}.lora_A"])
    return layer.get_parameter("weight") + (delta_OD.T if is_transposed(layer) else delta_OD)
