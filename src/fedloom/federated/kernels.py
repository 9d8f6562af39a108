"""Gradients of K clients, or of each of their examples, from one pass of the model.

Two kernels compute the same. Where every trained tensor may carry a client axis (adapters, small networks side by
side), the model runs once over the packed examples of all clients. Where other whole models are trained, or examples of
whole ones have gradients of their own, `torch.func.vmap` runs a model for each, over examples padded to one length.
Either agrees with micro-batches of one (tests/federated/test_kernels.py).

Shapes: K clients, E examples of all of them, P numbers in a row, L trained tensors.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedloom.base.mean import LossSum
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Batch, Item, Model, Task
from fedloom.contracts.model import sums_by

__all__ = ["Gradients", "client_gradients", "example_gradients"]

Parts = Sequence[Sequence[Item]]
Per = float | None
"""What an example's summed loss is divided by before it is differentiated; None: by its own weight, its mean loss."""


@dataclass(frozen=True)
class Gradients:
    """Summed gradients of the loss by client, and the losses they belong to."""

    sum_KP: Tensor
    total_K: Tensor
    weight_K: Tensor


def client_gradients(model: Model, task: Task, leaves: Tree, parts: Parts, *, per: Per = 1.0) -> Gradients:
    """Return the gradient of each client's loss, summed over its examples; `leaves` carry the client axis [K, ...]."""
    if not model.stackable and len(parts) > 1:
        return _whole_models(model, task, leaves, parts, per) or _one_by_one(model, task, leaves, parts, per)
    batch = task.collate(parts, model)
    model.context.batch = batch
    params = leaves if model.stackable else {name: leaf[0] for name, leaf in leaves.items()}
    losses = task.loss(model, params, batch)
    # Clients share no trainable number, so one backward pass of the sum gives each its own gradient.
    grads = _slopes(losses, per, leaves)
    sums = torch.stack((losses.total_B, losses.weight_B)).detach()  # else the losses of a round keep its graphs
    total_K, weight_K = sums_by(sums, batch.owner_X, len(parts))
    return Gradients(torch.cat([_rows(part) for part in grads], dim=1), total_K, weight_K)


def _rows(part: Tensor) -> Tensor:
    """Return a tensor with a leading axis as rows; a number has rows of one."""
    return part.reshape(len(part), -1)


def example_gradients(
    model: Model,
    task: Task,
    leaves: Tree,
    parts: Parts,
    scales: Callable[[Tensor], Tensor],
    *,
    per: Per = None,
) -> tuple[Tensor, Tensor]:
    """Return each client's sum [K, P] of scaled gradients of its examples' losses, and the scales [L, E].

    `scales` turns the norms [L, E] of the examples' gradients by tensor into factors [L, E]; examples are in the order
    of the parts. Sorted from long to short they are fastest, because their gradients need not be moved.
    """
    if not model.stackable or not model.examples_stack:
        return _examples_of_whole_models(model, task, leaves, parts, scales, per)
    batch = task.collate(parts, model)
    slots = {name: _slots(leaf, batch) for name, leaf in leaves.items()}
    model.context.batch, model.context.per_example = batch, True
    try:
        losses = task.loss(model, slots, batch)
        grads = _slopes(losses, per, slots)
    finally:
        model.context.per_example = False
    grads = [batch.by_example(part) for part in grads]  # an example's gradient is that of all its sequences
    return _scaled_sum(grads, batch.owner_X, len(parts), scales)


def _over(losses: LossSum, per: Per) -> Tensor:
    """Return one over what each example's summed loss is divided by: its weight, or `per`."""
    # An example that weighs nothing has no loss either.
    return (
        1 / losses.weight_B.clamp(min=torch.finfo().tiny) if per is None else torch.full_like(losses.weight_B, 1 / per)
    )


def _slopes(losses: LossSum, per: Per, leaves: Tree) -> list[Tensor]:
    """Return the gradient by each leaf of all examples' losses; what takes no part in them has one of zero."""
    leaves_L = list(leaves.values())
    if not losses.total_B.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves_L]
    value = losses.total_B @ _over(losses, per)
    return list(torch.autograd.grad(value, leaves_L, allow_unused=True, materialize_grads=True))


def _slots(leaf: Tensor, batch: Batch) -> Tensor:
    """Return a slot for each sequence [E, ...] with its client's values; of one client's, without a copy."""
    values = leaf.detach()
    if len(values) == 1:
        return values.expand(len(batch.client_E), *values.shape[1:]).requires_grad_()
    return values[batch.client_E].requires_grad_()


def _scaled_sum(
    grads: Sequence[Tensor], client_E: Tensor, n_clients: int, scales: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    flat = [_rows(part) for part in grads]
    norms_LE = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in flat])
    scales_LE = scales(norms_LE)
    owner_KE = functional.one_hot(client_E, n_clients).T.to(norms_LE.dtype)
    return torch.cat([(owner_KE * s_E) @ part for s_E, part in zip(scales_LE, flat, strict=True)], dim=1), scales_LE


# ------------------------------------------------------------------------------------------------- whole small models


def _whole_models(model: Model, task: Task, leaves: Tree, parts: Parts, per: Per) -> Gradients | None:
    """Return the gradients of all models from one pass, None where `vmap` cannot run this architecture."""
    found = _side_by_side(model, task, _detached(leaves), parts, per, own_dim=0)
    if found is None:
        return None
    grads, (total_KE, weight_KE) = found
    row_KP = torch.cat([_rows(grads[name]) for name in leaves], dim=1)
    return Gradients(row_KP, total_KE.sum(1), weight_KE.sum(1))


def _one_by_one(model: Model, task: Task, leaves: Tree, parts: Parts, per: Per) -> Gradients:
    """Return the gradients of models that pass one after another."""
    own = [{name: leaf[k : k + 1] for name, leaf in leaves.items()} for k in range(len(parts))]
    found = [client_gradients(model, task, leaf, [part], per=per) for leaf, part in zip(own, parts, strict=True)]
    row_KP = torch.cat([one.sum_KP for one in found])
    return Gradients(row_KP, torch.cat([one.total_K for one in found]), torch.cat([one.weight_K for one in found]))


def _examples_of_whole_models(
    model: Model, task: Task, leaves: Tree, parts: Parts, scales: Callable[[Tensor], Tensor], per: Per
) -> tuple[Tensor, Tensor]:
    """One client after another: every example of one has the same parameters, which then need no copies."""
    sums, all_scales = list[Tensor](), list[Tensor]()
    for client, part in enumerate(parts):
        own = {name: leaf[client] for name, leaf in _detached(leaves).items()}
        found = _side_by_side(model, task, own, [[item] for item in part], per, own_dim=None)
        grads = _examples_one_by_one(model, task, own, part, per) if found is None else [found[0][name] for name in own]
        alone_E = torch.zeros(len(part), dtype=torch.int64, device=model.device)
        sum_1P, scales_LE = _scaled_sum(grads, alone_E, 1, scales)
        sums.append(sum_1P)
        all_scales.append(scales_LE)
    return torch.cat(sums), torch.cat(all_scales, dim=1)


def _examples_one_by_one(model: Model, task: Task, own: Tree, part: Sequence[Item], per: Per) -> list[Tensor]:
    leaves = {name: tensor.requires_grad_() for name, tensor in own.items()}
    rows = list[list[Tensor]]()
    for item in part:
        model.context.batch = task.collate([[item]], model)
        losses = task.loss(model, leaves, model.context.batch)
        rows.append(_slopes(losses, per, leaves))
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _side_by_side(model: Model, task: Task, own: Tree, parts: Parts, per: Per, *, own_dim: int | None) -> Any:
    """Return gradients and losses of each part from one pass over stacked batches, None where there is no such pass.

    Control flow that depends on data (routing to experts, for one) cannot run over several models at once; what has
    failed once is not tried again.
    """
    batches = task.alike(parts, model) if model.context.side_by_side and len(parts) > 1 else None
    if batches is None:
        return None
    columns = {name: [vars(batch)[name] for batch in batches] for name in _tensors_of(batches[0])}
    dims = {name: None if all(one is column[0] for one in column) else 0 for name, column in columns.items()}
    fields = {name: column[0] if dims[name] is None else torch.stack(column) for name, column in columns.items()}

    def loss(params: Tree, fields: Tree) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        losses = task.loss(model, params, replace(batches[0], **fields))
        return losses.total_B @ _over(losses, per), (losses.total_B, losses.weight_B)

    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():  # the fused kernels have no rule for vmap
            warnings.filterwarnings("ignore", "There is a performance drop")
            return vmap(grad(loss, has_aux=True), in_dims=(own_dim, dims))(own, fields)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        model.context.side_by_side = False
        return None


def _tensors_of(batch: Batch) -> list[str]:
    return [name for name, value in vars(batch).items() if isinstance(value, Tensor)]


def _detached(leaves: Mapping[str, Tensor]) -> Tree:
    return {name: leaf.detach() for name, leaf in leaves.items()}
