"""What the adaptive server optimisers share: their slots, the momentum of a round, the scaled step and its gain.

Slots: "momentum" is m, "squares" is v, both of the shapes and dtypes of the parameters.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.tree import Slots, Tree, map_trees, zeros_like

__all__ = ["Variant", "first_squares", "fresh_slots", "mean_gain", "momentum_step", "refuse_one", "scaled_step"]

Variant = Literal["reddi", "published"]


def refuse_one(**fractions: float) -> None:
    """Refuse a decay of 1, which would never take anything in."""
    for name, value in fractions.items():
        if value >= 1:
            raise ConfigError(f"{name}: found {value:g}, allowed is a number >= 0 and < 1.")


def first_squares(params: Tree, initial: float | None, tau: float) -> Tree:
    """Return v before the first round: `initial` everywhere, tau^2 if that is None."""
    value = tau**2 if initial is None else initial
    return map_trees(lambda tensor: torch.full_like(tensor, value), params)


def scaled_step(params: Tree, direction: Tree, squares: Tree, *, lr: float, tau: float) -> Tree:
    """Return params + lr direction / (sqrt(v) + tau)."""
    return map_trees(lambda p, d, v: p + lr * d / (v.sqrt() + tau), params, direction, squares)


def momentum_step(
    params: Tree,
    delta: Tree,
    state: Slots,
    squares_of: Callable[[Tensor, Tensor], Tensor],
    *,
    lr: float,
    tau: float,
    beta1: float,
    variant: Variant,
    round: int,
) -> tuple[Tree, Slots]:
    """Return (params + lr m / (sqrt(v) + tau), the new m and v); `squares_of` makes v from the old v and a change.

    m = beta1 m + (1 - beta1) delta, and the change is delta. In the published variant the change is the new m, which is
    the whole delta in round 0.
    """
    if variant == "published" and round == 0:
        momentum = map_trees(torch.clone, delta)
    else:
        momentum = map_trees(lambda m, d: beta1 * m + (1 - beta1) * d, state["momentum"], delta)
    squares = map_trees(squares_of, state["squares"], delta if variant == "reddi" else momentum)
    stepped = scaled_step(params, momentum, squares, lr=lr, tau=tau)
    return stepped, {"momentum": momentum, "squares": squares}


def mean_gain(state: Slots, *, lr: float, tau: float) -> float:
    """Return the mean of lr / (sqrt(v) + tau) over all numbers: what the step's direction was multiplied by."""
    gains = map_trees(lambda v: lr / (v.sqrt() + tau), state["squares"])
    total = sum(float(gain.sum(dtype=torch.float64)) for gain in gains.values())
    return total / sum(gain.numel() for gain in gains.values())


def fresh_slots(params: Tree, initial: float | None, tau: float) -> Slots:
    """Return m = 0 and the first v."""
    return {"momentum": zeros_like(params), "squares": first_squares(params, initial, tau)}
