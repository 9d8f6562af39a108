"""Examples of several clients as one packed batch."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.contracts.language import Encoded, LanguageModel, PackedBatch

__all__ = ["LEAST_SLACK", "alike", "pack"]

LEAST_SLACK = 32  # tokens of padding a part from which on unequal parts are multiplied one by one: see docs/log.md
_WIDTH = 128  # of the model for which that was measured
_SPARED = {"cpu": 2**20, "cuda": 2**29}  # numbers of [T, T], times the width, that one more call of attention is worth


def pack(parts: Sequence[Sequence[Encoded]], device: torch.device, *, width: int = _WIDTH) -> PackedBatch:
    """Return the examples of each client as one batch on `device`; an example of several sequences is neighbours.

    The longest part sets the length of all, unless padding the others costs a model of that `width` more than products
    one by one: then, on the CPU, parts stay as they are. A token is asked for if it is supervised and not the first of
    its example, which nothing precedes.
    """
    items = [item for part in parts for item in part]
    sizes = tuple(sum(len(item.tokens_T) for item in part) for part in parts)
    lengths = [length for item in items for length in item.lengths]
    sequences = [len(item.lengths) for item in items]
    ragged = device.type == "cpu" and max(sizes) * len(sizes) - sum(sizes) >= _least_slack(width) * len(sizes)
    lengths_E = torch.tensor(lengths)
    counts_K = torch.tensor([sum(len(item.lengths) for item in part) for part in parts])
    client_E = torch.arange(len(parts)).repeat_interleave(counts_K)
    slack_K = torch.zeros(len(parts), dtype=torch.int64) if ragged else max(sizes) - torch.tensor(sizes)
    # Where a sequence starts: behind all sequences before it and the padding of the parts before its own.
    start_E = lengths_E.cumsum(0) - lengths_E + (slack_K.cumsum(0) - slack_K)[client_E]
    order_E, groups, place_M, real_M = _lines(lengths_E, start_E, _SPARED.get(device.type, _SPARED["cuda"]) / width)
    length = sum(sizes) if ragged else max(sizes) * len(parts)
    example_U = torch.arange(len(lengths)).repeat_interleave(lengths_E)  # the U real tokens, sequence by sequence
    column_U = torch.arange(len(example_U)) - (lengths_E.cumsum(0) - lengths_E)[example_U]
    place_U = start_E[example_U] + column_U
    tokens_N, positions_N, home_N = (torch.zeros(length, dtype=torch.int64) for _ in range(3))
    tokens_N[place_U] = torch.cat([item.tokens_T for item in items]).long()
    positions_N[place_U] = column_U
    home_N[place_M[real_M]] = real_M.nonzero().squeeze(1)
    padding_N = torch.ones(length, dtype=torch.bool).index_fill_(0, place_U, 0)
    supervised_U = torch.cat([item.supervised_T for item in items])
    first_U = torch.where(supervised_U, column_U, lengths_E[example_U])
    supervised_U &= column_U > 0
    asked_S = place_U[supervised_U] - 1
    reference_E = torch.tensor([value for item in items for value in item.reference])
    there = partial(_there, device=device)
    return PackedBatch(
        tokens_N=there(tokens_N),
        positions_N=there(positions_N),
        parts=sizes,
        client_E=there(client_E),
        groups=groups,
        back_E=there(order_E.argsort()),
        place_M=there(place_M),
        home_N=there(home_N),
        behind_B=there((~real_M).nonzero().squeeze(1)),
        padding_Q=there(padding_N.nonzero().squeeze(1)),
        asked_S=there(asked_S),
        targets_S=there(tokens_N[asked_S + 1]),
        example_S=there(example_U[supervised_U]),
        reference_E=there(reference_E),
        lines=tuple(zip(start_E.tolist(), lengths, strict=True)),
        items=tuple(sequences) if max(sequences) > 1 else (),
        in_order=order_E.tolist() == list(range(len(lengths))),
        prompt_E=there(lengths_E.scatter_reduce(0, example_U, first_U, "amin")),
    )


def _lines(
    lengths_E: Tensor, start_E: Tensor, spared: float
) -> tuple[Tensor, tuple[tuple[int, int], ...], Tensor, Tensor]:
    """Return how sequences lie side by side: order and groups, each cell's place, whether a token is there."""
    order_E = lengths_E.argsort(descending=True, stable=True)
    groups = _groups(lengths_E[order_E].tolist(), spared)
    # The line of a sequence, the column of a token in it, and whether there is one.
    width_E = torch.tensor([length for _, length in groups]).repeat_interleave(torch.tensor([n for n, _ in groups]))
    line_M = order_E.repeat_interleave(width_E)
    column_M = torch.arange(len(line_M)) - (width_E.cumsum(0) - width_E).repeat_interleave(width_E)
    real_M = column_M < lengths_E[line_M]
    return order_E, groups, torch.where(real_M, start_E[line_M] + column_M, 0), real_M


def _there(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device; from pinned memory a GPU takes it while the processor goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _least_slack(width: int) -> int:
    """Return the padding that products one by one are worth in a model of that width: a token costs its square."""
    return max(1, round(LEAST_SLACK * (_WIDTH / width) ** 2))


def _groups(lengths: Sequence[int], least: float) -> tuple[tuple[int, int], ...]:
    """Return (examples, longest) of groups of like length, from lengths that fall.

    They are parted where that spares attention most, as long as it spares more numbers of [T, T] than `least`.
    """
    longest, n_examples = lengths[0], len(lengths)
    spared = [(n_examples - at) * (longest**2 - length**2) for at, length in enumerate(lengths)]
    if max(spared) <= least:
        return ((n_examples, longest),)
    at = spared.index(max(spared))
    return *_groups(lengths[:at], least), *_groups(lengths[at:], least)


def alike(parts: Sequence[Sequence[Encoded]], model: LanguageModel) -> list[PackedBatch] | None:
    """Return a batch for each part, every sequence padded to one length, so that all have one shape.

    None where the model is not exact on packed rows of that length, or examples differ in how many sequences they are.
    """
    items = [item for part in parts for item in part]
    longest = max(length for item in items for length in item.lengths)
    exact = model.passage == "packed" and (model.exact_up_to is None or longest <= model.exact_up_to)
    per_item = {len(item.lengths) for item in items}
    if not exact or len(per_item) > 1:
        return None
    batches = [pack([part], model.device) for part in parts]
    n_sequences = max(len(batch.client_E) for batch in batches)
    length = max(batch.groups[0][1] for batch in batches)
    n_asked = max(len(batch.asked_S) for batch in batches)
    place_M = torch.arange(n_sequences * length, device=model.device)
    shared = place_M.new_zeros(n_sequences), place_M, place_M.new_zeros(0)  # the same objects in all
    return [_padded(batch, (n_sequences, length, n_asked), shared, min(per_item)) for batch in batches]


def _padded(
    batch: PackedBatch, shape: tuple[int, int, int], shared: tuple[Tensor, Tensor, Tensor], per_item: int
) -> PackedBatch:
    """Return a batch of one part with every sequence padded to one length; a token's position tells its column."""
    (n_sequences, length, n_asked), (zero_E, place_M, none) = shape, shared
    line_N = (batch.positions_N == 0).cumsum(0) - 1
    at_N = line_N * length + batch.positions_N
    tokens_M, positions_M = (
        t.new_zeros(n_sequences * length).index_copy(0, at_N, t) for t in (batch.tokens_N, batch.positions_N)
    )
    more = (0, n_asked - len(batch.asked_S))
    return PackedBatch(
        tokens_N=tokens_M,
        positions_N=positions_M,
        parts=(n_sequences * length,),
        client_E=zero_E,
        groups=((n_sequences, length),),
        back_E=zero_E,
        place_M=place_M,
        home_N=place_M,
        behind_B=none,
        padding_Q=none,
        asked_S=functional.pad(at_N[batch.asked_S], more),
        targets_S=functional.pad(batch.targets_S, more),
        # What is added is asked of the first token and belongs to nobody.
        example_S=functional.pad(batch.example_S, more, value=n_sequences),
        reference_E=functional.pad(batch.reference_E, (0, n_sequences - len(batch.reference_E))),
        items=(per_item,) * (n_sequences // per_item) if per_item > 1 else (),
        in_order=True,
    )
