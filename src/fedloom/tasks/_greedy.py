"""Greedy generation for a batch of prompts, with a key-value cache.

Written out rather than taken from `transformers`' `generate`, which it equals token by token (tested): parameters reach
the model through `functional_call`, and a row leaves the batch as soon as it has ended, so short answers cost little.
Measured on one core, 512 prompts of 20 tokens, 8 new tokens, 1 M parameters, batch 128, no row ending early: 0.97 s,
`generate` 1.07 s. Deliberately missing: sampling, beams.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from fedloom.contracts import Model
from fedloom.tree import Tree

__all__ = ["complete"]


def complete(
    model: Model, params: Tree, prompts: Sequence[Sequence[int]], *, stop: Collection[int], max_new_tokens: int
) -> list[list[int]]:
    """Return the new tokens of each prompt, the stop token that ended it included."""
    found: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    tokens_BT, attention_BT = _pad_left(prompts, model.device)
    positions_BT = (attention_BT.cumsum(1) - 1).clamp(min=0)
    cache = None
    for _ in range(max_new_tokens):
        inputs = {
            "input_ids": tokens_BT,
            "attention_mask": attention_BT,
            "position_ids": positions_BT,
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        with torch.no_grad():
            output = functional_call(model.module, params, kwargs=inputs)
        new_B, cache = output.logits[:, -1].argmax(-1), output.past_key_values
        new = new_B.tolist()
        for row, token in zip(rows, new, strict=True):
            found[row].append(token)
        going = [index for index, token in enumerate(new) if token not in stop]
        if not going:
            break
        keep = torch.tensor(going, device=model.device)
        if len(going) < len(rows):
            cache.batch_select_indices(keep)
            rows = [rows[index] for index in going]
        tokens_BT = new_B[keep, None]
        attention_BT = torch.cat([attention_BT[keep], torch.ones_like(tokens_BT)], dim=1)
        positions_BT = positions_BT[keep, -1:] + 1
    return found


def _pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens and attention [B, T]; what stands at padding does not matter, it is masked."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    attention = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(attention, device=device)
