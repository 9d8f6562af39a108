"""What the adaptive server optimisers share: the first squares, the scaled step and its gain.

Slots: "momentum" is m, "squares" is v, both of the shapes and dtypes of the parameters.
"""

import torch

from fedloom.base.errors import ConfigError
from fedloom.base.tree import Slots, Tree, map_trees

__all__ = ["first_squares", "mean_gain", "refuse_one", "scaled_step"]


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


def mean_gain(state: Slots, *, lr: float, tau: float) -> float:
    """Return the mean of lr / (sqrt(v) + tau) over all numbers: what the step's direction was multiplied by."""
    gains = map_trees(lambda v: lr / (v.sqrt() + tau), state["squares"])
    total = sum(float(gain.sum(dtype=torch.float64)) for gain in gains.values())
    return total / sum(gain.numel() for gain in gains.values())
