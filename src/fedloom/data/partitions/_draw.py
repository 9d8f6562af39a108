"""Draws from a Dirichlet distribution that survive parameters near zero and far above one."""

import math
from collections.abc import Sequence
from random import Random

__all__ = ["dirichlet"]


def dirichlet(alphas: Sequence[float], rng: Random) -> list[float]:
    """Return one draw of Dirichlet(alphas), shares that sum to 1.

    Gamma variables are drawn as logarithms, log G(a) = log G(a + 1) + log(U) / a, so that small parameters do not
    underflow to a sum of zero (Marsaglia and Tsang, 2000, section 6, https://doi.org/10.1145/358407.358414).
    """
    logs = [math.log(rng.gammavariate(a + 1, 1)) + math.log(1 - rng.random()) / a for a in alphas]
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    return [weight / sum(weights) for weight in weights]
