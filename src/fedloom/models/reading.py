"""What a model has read, kept as keys and values, so that each further token costs one token.

Shape letters: K owners, C columns, B = K C rows, T tokens, H heads, G heads of keys and values, d width of a head, L
layers, V vocabulary.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from fedloom.base.tree import Tree
from fedloom.contracts.language import LanguageModel
from fedloom.contracts.reading import Reader
from fedloom.models.attention import Attend
from fedloom.models.llama import Llama
from fedloom.models.merging import for_reading
from fedloom.models.prefix import prefix_names

__all__ = ["reader"]

_MOST_COPIED = 1 << 30  # bytes of a model that may lie in memory a second time
_LEAST_SHARED = 8  # tokens of a shared beginning: below, reading it apart gains nothing
_AHEAD = 64  # tokens for which room is made at a time


def reader(model: LanguageModel, params: Tree, prompts: Sequence[Sequence[int]], owners: int) -> Reader:
    """Return what reads the prompts, which all owners have alike many of: the model's own way where it has one."""
    if model.reads is not None:
        return model.reads(params, prompts, owners)
    if isinstance(model.module, Llama):
        return _Slots(model, model.module, params, prompts, owners)
    return _Alone(model, params, owners) if model.passage == "alone" else _Batch(model, params, owners)


class _Slots(Reader):
    """A plain Llama: keys and values lie [L, C K, G, T, d] in memory that stays, the owners of a column together.

    The beginning that all prompts share is read once for each owner and copied. A prefix lies before it, and places
    count from there, as positions do. One owner reads with a copy of the module that is made for it.
    """

    refills: ClassVar[bool] = True

    def __init__(
        self, model: LanguageModel, module: Llama, params: Tree, prompts: Sequence[Sequence[int]], owners: int
    ) -> None:
        shape, table = module.shape, module.model.embed_tokens.weight
        copies = owners == 1 and sum(parameter.nbytes for parameter in module.parameters()) <= _MOST_COPIED
        self.module = for_reading(module, model.of_one(params, 0), model.context.scaling_K) if copies else module
        self.params = {} if copies else params
        self.owners, self.device = owners, table.device
        self.keys, self.values = (
            table.new_zeros(shape.n_layers, 0, shape.n_groups, 0, shape.head_width) for _ in range(2)
        )
        self.lengths: list[int] = []
        """Places that each row has read, the owners of a column together."""
        self.beginning = self._prefix(module, params)
        self.first, self.both_ways = model.first, model.both_ways
        # Of prompts that are read in both directions a beginning is not the same whatever follows.
        if shared := 0 if self.both_ways else _shared(prompts):
            self.admit([prompts[0][:shared]] * owners)
            end = self.first + shared
            self.beginning = self.keys[:, :, :, :end].clone(), self.values[:, :, :, :end].clone()
            self.keep([])

    def _prefix(self, module: Llama, params: Tree) -> tuple[Tensor, Tensor]:
        """Return keys and values [L, K, G, T, d] of the T places before each sequence, of which there may be none."""
        own = [params.get(name, module.get_parameter(name)) for name in prefix_names(module)]
        if not own:
            none = self.keys.new_zeros(len(self.keys), self.owners, *self.keys.shape[2:])
            return none, none
        own = [one.expand(self.owners, *one.shape[-3:]).transpose(1, 2).to(self.keys) for one in own]
        return torch.stack(own[::2]), torch.stack(own[1::2])

    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read what follows the shared beginning, padded behind its end: what stands there is never looked at."""
        n_rows, start = len(prompts), self.beginning[0].shape[3]
        sizes = [self.first + len(prompt) - start for prompt in prompts]
        end = start + max(sizes)
        rows = slice(len(self.lengths), len(self.lengths) + n_rows)
        self._make_room(rows.stop, end)
        for kept, beginning in zip((self.keys, self.values), self.beginning, strict=True):
            kept[:, rows, :, :start] = beginning.repeat(1, n_rows // self.owners, 1, 1, 1)
        seen = torch.ones(end - start, end, dtype=torch.bool, device=self.device).tril(start) if start else None
        if self.both_ways:
            ends_B = start + self._by_column(torch.tensor(sizes, device=self.device))
            seen = (torch.arange(end, device=self.device) < ends_B[:, None])[:, None, None]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            for kept, new in zip((self.keys, self.values), (key, value), strict=True):
                kept[layer, rows, :, start:end] = self._by_column(new)
            out = functional.scaled_dot_product_attention(
                self._by_column(query),
                self.keys[layer, rows, :, :end],
                self.values[layer, rows, :, :end],
                attn_mask=seen,
                is_causal=seen is None,
                enable_gqa=key.shape[1] != query.shape[1],
            )
            return self._by_owner(out).transpose(1, 2)

        tokens = [
            [*prompt[start - self.first :], *[0] * (end - start - n)] for prompt, n in zip(prompts, sizes, strict=True)
        ]
        last = torch.arange(n_rows, device=self.device), torch.tensor(sizes, device=self.device) - 1
        self.lengths += self._by_column(start + torch.tensor(sizes)).tolist()
        return self._logits(tokens, torch.arange(start, end)[None], attend, last)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read a token of each row behind what it has read."""
        n_rows, end = len(self.lengths), max(self.lengths) + 1
        self._make_room(n_rows, end)
        length_B = torch.tensor(self.lengths, device=self.device)
        row_B = torch.arange(n_rows, device=self.device)
        behind_BT = torch.arange(end, device=self.device) > length_B[:, None]
        hidden_BT = torch.zeros(n_rows, 1, 1, end, dtype=self.keys.dtype, device=self.device)
        hidden_BT.masked_fill_(behind_BT[:, None, None], -torch.inf)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            for kept, new in zip((self.keys, self.values), (key, value), strict=True):
                kept[layer, row_B, :, length_B] = self._by_column(new)[:, :, 0]
            n_groups, width = key.shape[1], key.shape[3]
            query = self._by_column(query).view(n_rows, n_groups, -1, width)  # [B, G, H / G, d]
            weight = torch.matmul(query * width**-0.5, self.keys[layer, :n_rows, :, :end].mT).add_(hidden_BT)
            out = torch.matmul(weight.softmax(-1), self.values[layer, :n_rows, :, :end])
            return self._by_owner(out.view(n_rows, -1, 1, width)).transpose(1, 2)

        self.lengths = [length + 1 for length in self.lengths]
        positions_B1 = self._by_owner(length_B)[:, None]
        return self._logits([[token] for token in tokens], positions_B1, attend, (row_B, torch.zeros_like(row_B)))

    def keep(self, columns: Sequence[int]) -> None:
        """Keep columns; only those that come to another place are copied."""
        k = self.owners
        for new, old in enumerate(columns):
            if new != old:
                end = max(self.lengths[old * k : (old + 1) * k])
                for kept in (self.keys, self.values):
                    kept[:, new * k : (new + 1) * k, :, :end] = kept[:, old * k : (old + 1) * k, :, :end]
        self.lengths = [self.lengths[old * k + owner] for old in columns for owner in range(k)]

    def _make_room(self, n_rows: int, n_tokens: int) -> None:
        """Have memory for rows and tokens; where it grows, what was read is copied."""
        old_rows, old_tokens = self.keys.shape[1], self.keys.shape[3]
        if n_rows <= old_rows and n_tokens <= old_tokens:
            return
        n_tokens = old_tokens if n_tokens <= old_tokens else n_tokens + _AHEAD
        size = self.keys.shape[0], max(n_rows, old_rows), self.keys.shape[2], n_tokens, self.keys.shape[4]
        # Zeros, as what nobody may see is multiplied nevertheless, by a weight of zero.
        old, (self.keys, self.values) = (self.keys, self.values), (self.keys.new_zeros(size) for _ in range(2))
        for kept, before in zip((self.keys, self.values), old, strict=True):
            kept[:, :old_rows, :, :old_tokens] = before

    def _by_column(self, tensor: Tensor) -> Tensor:
        """Return [C K, ...] from [K C, ...]."""
        return tensor if self.owners == 1 else tensor.unflatten(0, (self.owners, -1)).transpose(0, 1).flatten(0, 1)

    def _by_owner(self, tensor: Tensor) -> Tensor:
        """Return [K C, ...] from [C K, ...]."""
        return tensor if self.owners == 1 else tensor.unflatten(0, (-1, self.owners)).transpose(0, 1).flatten(0, 1)

    def _logits(
        self, tokens: Sequence[Sequence[int]], positions: Tensor, attend: Attend, kept: tuple[Tensor, Tensor]
    ) -> Tensor:
        inputs = {
            "input_ids": torch.tensor(tokens, device=self.device),
            "position_ids": positions.to(self.device),
            "attend": attend,
            "logits_to_keep": kept,
        }
        with torch.no_grad():
            out = functional_call(self.module, self.params, kwargs=inputs) if self.params else self.module(**inputs)
        return out.logits


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, leaving at least one to each; 0 for few."""
    in_order = sorted(map(tuple, prompts))  # as words are, so that all others lie between the first and the last
    first, last = in_order[0], in_order[-1]
    n_alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    n_alike = min(n_alike, *(len(prompt) - 1 for prompt in prompts))
    return n_alike if n_alike >= _LEAST_SHARED and len(prompts) > 1 else 0


# ------------------------------------------------------------------------------------------------ models of any kind


class _Batch(Reader):
    """Any model that keeps keys and values as `transformers` does: rows come in together, padded before them."""

    def __init__(self, model: LanguageModel, params: Tree, owners: int) -> None:
        self.model, self.params, self.owners = model, params, owners
        self.attention_BT = torch.zeros(0, 0, dtype=torch.int64)
        self.cache: Any = None

    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read prompts once all columns before them are gone; what stands at padding is masked."""
        longest = max(map(len, prompts))
        tokens = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        attention = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self.attention_BT, self.cache = torch.tensor(attention, device=self.model.device), None
        return self._logits(tokens, (self.attention_BT.cumsum(1) - 1).clamp(min=0) + self.model.first)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read a token of each row."""
        positions_B1 = self.attention_BT.sum(1, keepdim=True) + self.model.first
        self.attention_BT = torch.cat([self.attention_BT, torch.ones_like(positions_B1)], dim=1)
        return self._logits([[token] for token in tokens], positions_B1)

    def keep(self, columns: Sequence[int]) -> None:
        """Keep columns of all owners."""
        width = len(self.attention_BT) // self.owners
        rows = [owner * width + column for owner in range(self.owners) for column in columns]
        row_B = torch.tensor(rows, dtype=torch.int64, device=self.model.device)
        self.attention_BT = self.attention_BT[row_B]
        if rows:
            self.cache.batch_select_indices(row_B)

    def _logits(self, tokens: Sequence[Sequence[int]], positions_BT: Tensor) -> Tensor:
        inputs = {
            "input_ids": torch.tensor(tokens, device=self.model.device),
            "attention_mask": self.attention_BT,
            "position_ids": positions_BT,
            "past_key_values": self.cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        with torch.no_grad():
            output: Any = functional_call(self.model.module, self.params, kwargs=inputs)
        self.cache = output.past_key_values
        return output.logits[:, -1]


class _Alone(Reader):
    """A model that reads one row at a time, without padding; one that keeps nothing reads all of it again."""

    most: ClassVar[int | None] = 1

    def __init__(self, model: LanguageModel, params: Tree, owners: int) -> None:
        self.model = model
        self.params = [model.of_one(params, owner) if owners > 1 else params for owner in range(owners)]
        self.read: list[list[int]] = []
        self.caches: list[Any] = []

    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the prompts of one column."""
        self.read, self.caches = [[] for _ in prompts], [None] * len(prompts)
        return torch.cat([self._logits(row, prompt) for row, prompt in enumerate(prompts)])

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read a token of each row."""
        return torch.cat([self._logits(row, [token]) for row, token in enumerate(tokens)])

    def keep(self, columns: Sequence[int]) -> None:
        """Keep the column, or be ready for the next one."""

    def _logits(self, row: int, tokens: Sequence[int]) -> Tensor:
        self.read[row] += tokens
        cache = self.caches[row]
        shown = self.read[row] if cache is None else list(tokens)
        inputs: dict[str, Any] = {"input_ids": torch.tensor([shown], device=self.model.device), "use_cache": True}
        inputs |= {"logits_to_keep": 1} if self.model.keeps else {}
        inputs |= {} if cache is None else {"past_key_values": cache}
        with torch.no_grad():
            output: Any = functional_call(self.model.module, self.params[row], kwargs=inputs)
        self.caches[row] = output.get("past_key_values")
        return output.logits[:, -1]
