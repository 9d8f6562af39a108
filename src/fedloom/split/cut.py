"""Where a model is cut: the first `a` blocks and the last `c` stay with the client, those between are the server's.

FL-GLM (arXiv:2406.14898) leaves one block on either side, in a U: tokens, labels, logits and loss stay at the client,
which hands out the states behind its input part A and takes back those before its output part C. In FedBERT, of which
the server has every block, it sees the gradient that enters the embedding; a block in front of it takes that away.

Deviations: `a` and `c` are free, and every client may have its own; base weights are frozen where they lie.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from fedloom.base.errors import ConfigError, ModelError

__all__ = ["Anatomy", "Cut", "anatomy_of", "segments"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How many blocks a client keeps at the input and at the output."""

    a: int
    c: int

    @classmethod
    def read(cls, text: str) -> "Cut":
        """Return the cut that a text says, `a:c`.

        >>> Cut.read("2:1")
        Cut(a=2, c=1)
        """
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text)
        if not found or not all(int(count) for count in found.groups()):
            raise ConfigError(
                f"cut: found '{text}', allowed is 'a:c', the blocks that a client keeps at the input and at the "
                "output, at least one each; '1:1' keeps the fewest."
            )
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.a}:{self.c}"

    def middle(self, n_blocks: int) -> range:
        """Return the blocks that are the server's of so many; ConfigError where none is left."""
        if self.a < 1 or self.c < 1 or self.a + self.c >= n_blocks:
            raise ConfigError(
                f"cut: found {self} of a model of {n_blocks} blocks, allowed are a >= 1 and c >= 1 with a + c <= "
                f"{n_blocks - 1}, so that the server has one at least; lower one of the two."
            )
        return range(self.a, n_blocks - self.c)


@dataclass(frozen=True)
class Anatomy:
    """Where a decoder keeps its parts, by the names of modules below that of its body."""

    body: str
    tables: tuple[str, ...]
    """Embeddings of tokens first, then of positions where they are learnt."""
    blocks: str
    norm: str
    n_blocks: int
    head: str = "lm_head"

    def block_of(self, name: str) -> int | None:
        """Return the block in which a parameter lies; None outside of them."""
        found = re.match(rf"{re.escape(f'{self.body}.{self.blocks}')}\.(\d+)\.", name)
        return int(found.group(1)) if found else None

    def at_server(self, name: str, cuts: Sequence[Cut]) -> bool:
        """Return whether a parameter lies in a block that no client keeps."""
        block = self.block_of(name)
        return block is not None and all(block in cut.middle(self.n_blocks) for cut in cuts)


_LLAMA = ("model", ("embed_tokens",), "layers", "norm")
_KNOWN = {
    "Llama": _LLAMA,
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _LLAMA,
    "GPT2LMHeadModel": ("transformer", ("wte", "wpe"), "h", "ln_f"),
}
"""Architectures whose blocks pass states [B, T, D] on and know nothing else of one another."""


def anatomy_of(module: nn.Module) -> Anatomy:
    """Return where a model keeps its parts; ModelError for an architecture that is not known to come apart."""
    name = type(module).__name__
    if name not in _KNOWN:
        raise ModelError(
            f"split: found a {name}, which is not known to come apart; allowed are {', '.join(sorted(_KNOWN))}: "
            "take one of them, or protocol = 'federated'."
        )
    body, tables, blocks, norm = _KNOWN[name]
    return Anatomy(body, tables, blocks, norm, len(list(module.get_submodule(f"{body}.{blocks}").children())))


def segments(cuts: Sequence[Cut], n_blocks: int) -> list[range]:
    """Return the server's blocks in stretches, in each of which the same clients pass.

    >>> segments([Cut(1, 1), Cut(2, 1), Cut(1, 3)], 8)
    [range(1, 2), range(2, 5), range(5, 7)]
    """
    ends = sorted({end for cut in cuts for end in (cut.middle(n_blocks).start, cut.middle(n_blocks).stop)})
    return [range(first, last) for first, last in pairwise(ends)]
