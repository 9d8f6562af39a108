"""What a part of a model has read of one text: keys and values of its blocks, so that a further token costs one token.

The same for every architecture whose attention is ours (`models.attention`): a pass brings along how it attends, and
keys and values are laid down behind those of the tokens before. Room is made once, for the tokens that were asked for;
a layer's prefix lies before them. Where prompts are read in both directions, what is read first is a prompt.

Shapes: L places of a prefix, T new tokens, D width, H heads, G of keys and values, d width of a head, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base.errors import DataError, ModelError
from fedloom.base.tree import Tree
from fedloom.models.prefix import prefixes
from fedloom.split.cut import anatomy_of
from fedloom.split.parts import Part

__all__ = ["Reading"]


class Reading:
    """One text of one client on its way through a part."""

    def __init__(self, part: Part, params: Tree, room: int) -> None:
        """Take parameters of the whole model, one client's, and how many tokens there will be at most."""
        if part.passage != "packed":
            raise ModelError(
                f"{type(part.module).__name__}: passes texts as '{part.passage}', sessions take models whose attention "
                "is 'packed': generate where the whole model is."
            )
        self._part, self._own, self._room = part, part.of(params), room
        self._kept = dict[int, tuple[Tensor, Tensor]]()
        self._prefixes = self._by_layer()
        self.length = 0
        """Tokens read so far."""

    def states(self, entering: Tensor) -> Tensor:
        """Return the states [T, D] behind the part of tokens [T], or of the states [T, D] that stand for them."""
        with torch.no_grad():
            found = self._part.states(self._own, self._inputs(entering))[0]
        self.length += len(entering)
        return found

    def logits(self, entering: Tensor) -> Tensor:
        """Return the logits [V] behind the last of states [T, D]; the output part has them."""
        with torch.no_grad():
            found = self._part.last_logits(self._own, self._inputs(entering), len(entering))
        self.length += len(entering)
        return found

    def roll_back(self, length: int) -> None:
        """Forget what was read behind so many tokens."""
        if not 0 <= length <= self.length:
            raise DataError(f"session: found {length} tokens to go back to, of which {self.length} were read.")
        self.length = length

    def _inputs(self, entering: Tensor) -> dict[str, Any]:
        start, end = self.length, self.length + len(entering)
        if not start < end <= self._room:
            raise DataError(
                f"session: found {end} tokens, of which it has room for {self._room}, and {start} were read."
            )
        self._part.context.batch, self._part.context.seeds = None, ()
        name = "inputs_embeds" if entering.is_floating_point() else "input_ids"
        return {
            name: entering[None].to(self._part.device),
            "position_ids": self._part.first + torch.arange(start, end, device=self._part.device)[None],
            # transformers hands a mask of four axes on as it is; what is seen is said by `attend`.
            "attention_mask": torch.zeros(1, 1, 1, 1, dtype=torch.int64, device=self._part.device),
            "use_cache": False,
            "attend": self._attend,
        }

    def _by_layer(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Return the prefix [1, G, L, d] of each layer that has one, keys and values."""
        anatomy, module = anatomy_of(self._part.module), self._part.module
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for name in prefixes(module):
            layer = anatomy.block_of(f"{name}.")
            both = (f"{name}.{part}" for part in ("key", "value"))
            key, value = (self._own.get(one, module.get_parameter(one)) for one in both)
            if layer is not None:
                found[layer] = key.transpose(0, 1)[None], value.transpose(0, 1)[None]
        return found

    def _attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return [1, T, H, d] from queries [1, H, T, d], keys and values [1, G, T, d] of the new tokens."""
        first = self._part.first
        if layer not in self._kept:
            size = (*key.shape[:2], first + self._room, key.shape[3])
            self._kept[layer] = key.new_zeros(size), value.new_zeros(size)
            for kept, own in zip(self._kept[layer], self._prefixes.get(layer, ()), strict=False):
                kept[:, :, :first] = own
        start, end = first + self.length, first + self.length + key.shape[2]
        for kept, new in zip(self._kept[layer], (key, value), strict=True):
            kept[:, :, start:end] = new
        keys, values = (kept[:, :, :end] for kept in self._kept[layer])
        seen_TT = torch.ones(end - start, end, dtype=torch.bool, device=key.device)
        if self.length or not self._part.both_ways:
            seen_TT = seen_TT.tril(start)
        whole = start == 0 and not self._part.both_ways  # the fused kernel's own mask
        out = functional.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=None if whole else seen_TT,
            is_causal=whole,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        return out.transpose(1, 2)
