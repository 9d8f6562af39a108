"""What sums with Skellam noise cost: epsilon at a delta, by Renyi differential privacy.

Agarwal, Kairouz & Liu 2021, https://arxiv.org/abs/2110.04995, theorem 3.5 and corollaries: noise of variance v on whole
numbers that one client changes by at most D2 in the Euclidean and D1 in the absolute norm has, at whole orders a >= 2,

    rdp(a) = a D2^2 / (2 v) + min(((2 a - 1) D2^2 + 6 D1) / (4 v^2), 3 D1 / (2 v)).

For S whole numbers D1 <= min(sqrt(S) D2, D2^2). Over rounds it adds up (Mironov 2017,
https://arxiv.org/abs/1702.07476, proposition 1) and becomes epsilon at delta by proposition 12 of Canonne, Kamath &
Steinke 2020, https://arxiv.org/abs/2004.00010. Protected is whether a client's row is in the sum or zero; replacing it
by another row is twice as far. Every client counts as taking part in every round: nothing is claimed for sampling.

Deviations: drawn noise is not quite a Skellam number (`skellam.distance`). Of n clients with S numbers in T rounds that
moves no probability by more than n S T times the distance, which costs (1 + e^epsilon) times as much delta. A hundredth
of delta is kept for it; where that is not enough, epsilon is infinite.
"""

import math

from fedloom.base.errors import ConfigError
from fedloom.secure_sum.numbers import Numbers
from fedloom.secure_sum.skellam import LARGEST_VARIANCE, distance

__all__ = ["ORDERS", "absolute_reach", "check_room", "epsilon", "least_variance", "rdp", "spent"]

ORDERS = (*range(2, 129), *range(136, 257, 8), 320, 384, 512, 768, 1024)
"""Whole numbers, for which the theorem is proven."""

_KEPT = 0.01


def rdp(order: int, *, reach: float, absolute: float, variance: float) -> float:
    """Return the Renyi divergence at a whole order >= 2 of one sum; `reach` is D2 and `absolute` D1, in units."""
    if order < 2 or not variance > 0:
        raise ConfigError(f"secure sum: found order {order} and variance {variance:g}, allowed are >= 2 and > 0.")
    near = ((2 * order - 1) * reach**2 + 6 * absolute) / (4 * variance**2)
    return order * reach**2 / (2 * variance) + min(near, 3 * absolute / (2 * variance))


def absolute_reach(reach: float, numbers: int) -> float:
    """Return a bound on D1 from D2, for S whole numbers."""
    return min(math.sqrt(numbers) * reach, reach**2)


def epsilon(
    *, reach: float, numbers: int, variance: float, rounds: int, delta: float, clients: int = 1, least: int = 1
) -> float:
    """Return epsilon at delta after so many sums of rows of S numbers; infinite where none is proven.

    `variance` is that of the noise of the fewest clients whose noise counts, `least`; at most `clients` add theirs.
    """
    if rounds < 1 or not 0 < delta < 1 or not reach >= 0:
        raise ConfigError(
            f"secure sum: found {rounds} rounds, delta {delta:g} and reach {reach:g}, allowed are >= 1, in (0, 1) "
            "and >= 0."
        )
    absolute, left = absolute_reach(reach, numbers), delta * (1 - _KEPT)
    found = min(
        rounds * rdp(order, reach=reach, absolute=absolute, variance=variance)
        + math.log1p(-1 / order)
        - (math.log(left) + math.log(order)) / (order - 1)
        for order in ORDERS
    )
    found = max(found, 0.0)
    off = clients * numbers * rounds * distance(variance / least)
    proven = found < 700 and (1 + math.exp(found)) * off <= _KEPT * delta
    return found if proven else math.inf


def spent(numbers: Numbers, size: int, *, variance: float, rounds: int, delta: float, least: int) -> float:
    """Return epsilon for rows of `size` numbers as `numbers` encodes them, its rounding counted in.

    ConfigError for weights and counts inside the sum: they tell of a client what its clipped row does not bound.
    """
    if numbers.weighted or numbers.counted:
        raise ConfigError(
            "secure sum: found noise beside weights or counts inside the sum, allowed are rows alone; set weighted and "
            "counted to false."
        )
    reach = numbers.reach(size)
    return epsilon(
        reach=reach, numbers=size, variance=variance, rounds=rounds, delta=delta, clients=numbers.clients, least=least
    )


def least_variance(numbers: Numbers, size: int, *, target: float, rounds: int, delta: float, least: int) -> float:
    """Return the least variance on a sum, to 0.1 % from above, with which all rounds cost at most `target`.

    Refused where the noise of one client would be larger than can be drawn, or a sum with it would leave 32 bits.
    """

    def fits(variance: float) -> bool:
        return spent(numbers, size, variance=variance, rounds=rounds, delta=delta, least=least) <= target

    low, high = 0.0, numbers.reach(size) ** 2
    while not fits(high):
        low, high = high, 2 * high
        if high / least > 2 * LARGEST_VARIANCE:
            break
    while high - low > 1e-3 * low and high / least <= 2 * LARGEST_VARIANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    check_room(numbers, high, least)
    return high


def check_room(numbers: Numbers, variance: float, least: int) -> None:
    """Refuse noise that one client cannot draw, or with which a sum would leave 32 bits."""
    # All clients may come: ten standard deviations of all their noise beside the largest sum.
    room = 2**31 - (numbers.clients << numbers.bits)
    if variance / least > LARGEST_VARIANCE or 10 * math.sqrt(numbers.clients * variance / least) > room:
        raise ConfigError(
            f"secure sum: found noise with deviation {math.sqrt(variance):.3g} units beside {numbers.clients} clients "
            f"of {numbers.bits} bits, allowed is what 32 bits hold; lower the bits, or the clip towards the norm."
        )
