"""Examples of several clients as one packed batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedloom.contracts import Batch, Encoded

__all__ = ["pack"]


def pack(parts: Sequence[Sequence[Encoded]], device: torch.device) -> Batch:
    """Return the examples of each client as one batch on `device`: the longest part sets the length of all.

    A token is asked for if it is supervised and not the first of its example, which nothing precedes.
    """
    items = [item for part in parts for item in part]
    sizes = tuple(sum(len(item.tokens_T) for item in part) for part in parts)
    longest = max(sizes)
    lengths_E = torch.tensor([len(item.tokens_T) for item in items])
    client_E = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    slack_K = longest - torch.tensor(sizes)
    # Where an example starts: behind all examples before it and the padding of the parts before its own.
    start_E = lengths_E.cumsum(0) - lengths_E + (slack_K.cumsum(0) - slack_K)[client_E]
    width = int(lengths_E.max())
    column_T = torch.arange(width)
    real_ET = column_T < lengths_E[:, None]
    place_ET = torch.where(real_ET, start_E[:, None] + column_T, 0)
    place_U, real_M = place_ET[real_ET], real_ET.view(-1)  # the U real tokens, in the order of the examples
    length = longest * len(parts)
    tokens_N, positions_N, home_N = (torch.zeros(length, dtype=torch.int64) for _ in range(3))
    tokens_N[place_U] = torch.cat([item.tokens_T for item in items]).long()
    positions_N[place_U] = column_T.expand_as(real_ET)[real_ET]
    home_N[place_U] = real_M.nonzero().squeeze(1)
    padding_N = torch.ones(length, dtype=torch.bool)
    padding_N[place_U] = False
    example_U = torch.arange(len(items)).repeat_interleave(lengths_E)
    supervised_U = torch.cat([item.supervised_T for item in items]) & (positions_N[place_U] > 0)
    asked_S = place_U[supervised_U] - 1
    tensors: tuple[Tensor, ...] = (
        client_E,
        place_ET,
        home_N,
        (~real_M).nonzero().squeeze(1),
        padding_N.nonzero().squeeze(1),
        asked_S,
        tokens_N[asked_S + 1],
        example_U[supervised_U],
    )
    return Batch(tokens_N.to(device), positions_N.to(device), sizes, *(tensor.to(device) for tensor in tensors))
