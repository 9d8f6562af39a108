"""Examples of several clients as one packed batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedloom.contracts.model import Batch, Encoded

__all__ = ["LEAST_SLACK", "least_slack", "pack"]

LEAST_SLACK = 32  # tokens of padding a part from which on unequal parts are multiplied one by one: see docs/log.md
_WIDTH = 128  # of the model for which that was measured
_FEWEST = 8  # examples of a group: below, one more call costs more than padding


def pack(parts: Sequence[Sequence[Encoded]], device: torch.device, *, least_slack: int = LEAST_SLACK) -> Batch:
    """Return the examples of each client as one batch on `device`; an example of several sequences is neighbours.

    The longest part sets the length of all, unless that would pad the others by `least_slack` tokens in the mean: then,
    on the CPU, parts stay as they are. A token is asked for if it is supervised and not the first of its example, which
    nothing precedes.
    """
    items = [item for part in parts for item in part]
    sizes = tuple(sum(len(item.tokens_T) for item in part) for part in parts)
    lengths = [length for item in items for length in item.lengths]
    sequences = [len(item.lengths) for item in items]
    ragged = device.type == "cpu" and max(sizes) * len(sizes) - sum(sizes) >= least_slack * len(sizes)
    lengths_E = torch.tensor(lengths)
    counts_K = torch.tensor([sum(len(item.lengths) for item in part) for part in parts])
    client_E = torch.arange(len(parts)).repeat_interleave(counts_K)
    slack_K = torch.zeros(len(parts), dtype=torch.int64) if ragged else max(sizes) - torch.tensor(sizes)
    # Where a sequence starts: behind all sequences before it and the padding of the parts before its own.
    start_E = lengths_E.cumsum(0) - lengths_E + (slack_K.cumsum(0) - slack_K)[client_E]
    order_E = lengths_E.argsort(descending=True, stable=True)
    groups = _groups(lengths_E[order_E].tolist())
    # Side by side: the line of a sequence, the column of a token in it, and whether there is one.
    width_E = torch.tensor([length for _, length in groups]).repeat_interleave(torch.tensor([n for n, _ in groups]))
    line_M = order_E.repeat_interleave(width_E)
    column_M = torch.arange(len(line_M)) - (width_E.cumsum(0) - width_E).repeat_interleave(width_E)
    real_M = column_M < lengths_E[line_M]
    place_M = torch.where(real_M, start_E[line_M] + column_M, 0)
    length = sum(sizes) if ragged else max(sizes) * len(parts)
    example_U = torch.arange(len(lengths)).repeat_interleave(lengths_E)  # the U real tokens, sequence by sequence
    column_U = torch.arange(len(example_U)) - (lengths_E.cumsum(0) - lengths_E)[example_U]
    place_U = start_E[example_U] + column_U
    tokens_N, positions_N, home_N = (torch.zeros(length, dtype=torch.int64) for _ in range(3))
    tokens_N[place_U] = torch.cat([item.tokens_T for item in items]).long()
    positions_N[place_U] = column_U
    home_N[place_M[real_M]] = real_M.nonzero().squeeze(1)
    padding_N = torch.ones(length, dtype=torch.bool).index_fill_(0, place_U, 0)
    supervised_U = torch.cat([item.supervised_T for item in items]) & (column_U > 0)
    asked_S = place_U[supervised_U] - 1
    rest: tuple[Tensor, ...] = (
        order_E,
        place_M,
        home_N,
        (~real_M).nonzero().squeeze(1),
        padding_N.nonzero().squeeze(1),
        asked_S,
        tokens_N[asked_S + 1],
        example_U[supervised_U],
        torch.tensor([value for item in items for value in item.reference]),
    )
    first = (tokens_N.to(device), positions_N.to(device), sizes, client_E.to(device), groups)
    in_order = order_E.tolist() == list(range(len(lengths)))
    several = tuple(sequences) if max(sequences) > 1 else ()
    lines = tuple(zip(start_E.tolist(), lengths, strict=True))
    return Batch(*first, *(tensor.to(device) for tensor in rest), lines=lines, items=several, in_order=in_order)


def least_slack(width: int) -> int:
    """Return the padding that products one by one are worth in a model of that width: a token costs its square."""
    return max(1, round(LEAST_SLACK * (_WIDTH / width) ** 2))


def _groups(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (examples, longest) of groups of like length, from lengths that fall.

    A group ends where the next example is a third shorter than its first, unless few examples would gain by it.
    """
    groups: list[tuple[int, int]] = []
    start = 0
    for index, length in enumerate(lengths):
        enough = min(index - start, len(lengths) - index) >= _FEWEST
        if enough and 3 * length <= 2 * lengths[start]:
            groups.append((index - start, lengths[start]))
            start = index
    return (*groups, (len(lengths) - start, lengths[start]))
