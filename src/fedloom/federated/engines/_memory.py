"""How many clients fit into memory together, from what one of them was measured to need."""

import heapq
import logging
import math

import torch

from fedloom.base.errors import MemoryExceededError
from fedloom.base.machine import free_bytes
from fedloom.base.tree import Layout, Tree, stack
from fedloom.contracts.federated import Item, Work

__all__ = ["room_for"]

_log = logging.getLogger(__name__)

_ROWS = 10  # a client's row, gradients, moments, scratch, anchor, memory, upload and temporaries
_HOPELESS = 1 / 16  # of a client in half of the free memory: eight times what is free, which no estimate is off by
_TOKENS = {"cpu": 4096, "cuda": 32768}  # tokens of a pass beyond which more clients no longer pay: docs/log.md
_FLOPS = {"cpu": 2e9, "cuda": 2e11}  # forwards, of models whose steps are counted


def room_for(work: Work) -> tuple[int, int]:
    """Return how many clients fit into half of the free memory, and how many pay off."""
    device = work.model.device
    # A Poisson draw is cut into micro-batches of up to one and a half times the batch.
    plan, batch = work.plan, work.plan.local.batch
    per_example = plan.mechanism.covers().per_example
    n_examples = math.ceil(1.5 * batch) if per_example else batch
    longest, mean, item = _longest(work, n_examples)
    tokens = sum(longest) + (n_examples - len(longest)) * mean  # larger batches repeat examples
    row_bytes = 4 * (plan.layout.size + Layout.of_tree(work.private).size)
    rows = (_ROWS + (n_examples if per_example else 0)) * row_bytes
    fits = _fitting(work, item, free_bytes(device) / 2, rows, tokens)
    if fits < _HOPELESS:
        raise MemoryExceededError(
            f"local.batch: a step of {n_examples:,} examples needs about {1 / (2 * fits):,.0f} times the free memory, "
            f"{free_bytes(device) / 2**30:.1f} GiB; lower it, task.max_length or model.lora_rank."
        )
    return max(1, int(fits)), max(1, round(_paying(work) / (n_examples * mean)))


def _longest(work: Work, n_examples: int) -> tuple[list[int], float, Item]:
    """Return the sizes of the largest items, the mean of all sizes, and the largest item, in one pass."""
    total, count, sizes, most = 0, 0, list[int](), None
    for shard in work.shards.values():
        own = [work.task.size(item) for item in shard.items]
        total, count = total + sum(own), count + len(own)
        if own and (not sizes or max(own) > sizes[0]):
            most = shard.items[own.index(max(own))]
        sizes = heapq.nlargest(n_examples, (*sizes, *own))
    return sizes, total / count, most


def _paying(work: Work) -> float:
    """Return the size of a pass beyond which more clients no longer pay."""
    kind, flops = work.model.device.type, work.model.flops
    return _FLOPS[kind] / flops if flops else _TOKENS[kind]


def _fitting(work: Work, longest: Item, room: float, rows: int, tokens: float) -> float:
    """Return how many clients fit; where not even one does, have blocks computed once more, if they can be."""
    context, per_token = work.model.context, _bytes_per_token(work, longest)
    if context.n_blocks and not context.recompute and rows + tokens * per_token > room:
        context.recompute = True
        within = per_token / context.n_blocks  # one block at a time is as it was
        per_token = _bytes_per_token(work, longest) + within
        _log.info(
            "blocks are computed once more for their gradients: %.1f GiB of memory do not hold one client's",
            room / 2**30,
        )
    return room / (rows + tokens * per_token)


def _bytes_per_token(work: Work, item: Item) -> float:
    """Return what a pass keeps for its gradient, measured on one example."""
    model, (item,) = work.model, work.task.prepared([item], work.model)
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaves: Tree = stack([model.trainable]) if model.stackable else dict(model.trainable)
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
    batch = work.task.collate([[item]], model)
    model.context.batch = batch
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        work.task.loss(model, leaves, batch)
    model.context.batch = None
    fixed = [*model.module.parameters(), *leaves.values()]
    for tensor in fixed:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    # Gradients of activations live beside what is kept, a few layers at a time.
    return 1.5 * sum(kept.values()) / work.task.size(item)
