"""What the adaptive server optimisers share: their slots, the momentum of a round and the scaled step.

Slots: "momentum" is m, "squares" is v, both of the shapes and dtypes of the parameters.
"""

from typing import Literal

import torch

from fedloom.errors import ConfigError
from fedloom.tree import Slots, Tree, map_trees, zeros_like

__all__ = ["Variant", "first_squares", "fresh_slots", "mean_gain", "momentum_of_round", "refuse_one", "scaled_step"]

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


def momentum_of_round(delta: Tree, state: Slots, beta1: float, variant: Variant, *, round: int) -> Tree:
    """Return m = beta1 m + (1 - beta1) delta; the published variant takes the whole delta in round 0."""
    if variant == "published" and round == 0:
        return map_trees(torch.clone, delta)
    return map_trees(lambda m, d: beta1 * m + (1 - beta1) * d, state["momentum"], delta)


def scaled_step(params: Tree, direction: Tree, squares: Tree, *, lr: float, tau: float) -> Tree:
    """Return params + lr direction / (sqrt(v) + tau)."""
    return map_trees(lambda p, d, v: p + lr * d / (v.sqrt() + tau), params, direction, squares)


def mean_gain(state: Slots, *, lr: float, tau: float) -> float:
    """Return the mean of lr / (sqrt(v) + tau) over all numbers: what the step's direction was multiplied by."""
    gains = map_trees(lambda v: lr / (v.sqrt() + tau), state["squares"])
    total = sum(float(gain.sum(dtype=torch.float64)) for gain in gains.values())
    return total / sum(gain.numel() for gain in gains.values())


def fresh_slots(params: Tree, initial: float | None, tau: float) -> Slots:
    """Return m = 0 and the first v."""
    return {"momentum": zeros_like(params), "squares": first_squares(params, initial, tau)}
