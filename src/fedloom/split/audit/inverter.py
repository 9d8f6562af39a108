"""T4: a learned inverter: from a state to the token at its place, trained on other texts through the known weights.

Two layers of width H from a state over its root mean square, trained with AdamW on pairs of token and state that the
attacker makes itself: with texts like the client's, or with tokens drawn at random where it has none. Where clients
add noise to their states it adds as much, drawn anew in every step. What the client's weights have moved since counts
against it, how deep the cut lies hardly does (5.3 of the specification).

Shapes: M pairs, D width of a state, H hidden, V vocabulary, T tokens of a text.

Deviations: BiSR (CCS 2024) trains a recurrent inverter; one token at a time suffices here, as a causal model adds a
token to its own state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base import rng
from fedloom.contracts.language import Encoded
from fedloom.split.audit.target import Target, states_of
from fedloom.split.cut import anatomy_of

__all__ = ["Inverter", "random_texts"]

_HIDDEN, _BATCH, _LR = 256, 512, 3e-3


@dataclass(frozen=True)
class Inverter:
    """A trained inverter."""

    first_HD: Tensor
    second_VH: Tensor

    @classmethod
    def trained(cls, target: Target, texts: Sequence[Encoded], *, steps: int, seed: int) -> "Inverter":
        """Return an inverter of the known input part, from texts of the attacker's own."""
        states_MD = torch.cat(states_of(target.ends.front, target.known, texts))
        tokens_M = torch.cat([text.tokens_T for text in texts]).long().to(states_MD.device)
        n_words = (
            target.model.module.get_submodule(anatomy_of(target.model.module).head).get_parameter("weight").shape[0]
        )
        noise = target.defences.noise * float(states_MD.square().mean().sqrt())
        width, draw = states_MD.shape[1], rng.generator(seed, "inverter")
        first = torch.randn(_HIDDEN, width, generator=draw) / width**0.5
        second = torch.randn(n_words, _HIDDEN, generator=draw) / _HIDDEN**0.5
        weights = [one.to(states_MD.device).requires_grad_() for one in (first, second)]
        optimiser = torch.optim.AdamW(weights, lr=_LR)
        for _ in range(steps):
            at = torch.randint(0, len(tokens_M), (_BATCH,), generator=draw).to(states_MD.device)
            seen_ND = states_MD[at]
            if noise:
                seen_ND = seen_ND + noise * torch.randn(seen_ND.shape, generator=draw).to(seen_ND)
            loss = functional.cross_entropy(_scores(weights[0], weights[1], seen_ND), tokens_M[at])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return cls(weights[0].detach(), weights[1].detach())

    def ranked(self, states_TD: Tensor, count: int) -> Tensor:
        """Return the likeliest tokens [T, count] at each place, the first ones first."""
        return _scores(self.first_HD, self.second_VH, states_TD).topk(count, dim=1).indices

    def read(self, states: Sequence[Tensor]) -> list[list[int]]:
        """Return the likeliest token at each place of each text."""
        return [self.ranked(one, 1)[:, 0].tolist() for one in states]


def _scores(first_HD: Tensor, second_VH: Tensor, states_MD: Tensor) -> Tensor:
    normal_MD = states_MD * states_MD.square().mean(1, keepdim=True).clamp(min=1e-12).rsqrt()
    return functional.gelu(normal_MD @ first_HD.T) @ second_VH.T


def random_texts(target: Target, like: Sequence[Encoded], *, seed: int) -> list[Encoded]:
    """Return texts of tokens drawn at random, as long as those: what an attacker without any text trains on."""
    n_words, draw = len(target.model.tokenizer), rng.generator(seed, "random texts")
    return [
        Encoded(torch.randint(n_words, one.tokens_T.shape, generator=draw, dtype=torch.int32), one.supervised_T)
        for one in like
    ]
