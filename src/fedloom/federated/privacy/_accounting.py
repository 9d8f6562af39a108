"""What Poisson-sampled Gaussian noise costs, by the accountants of the library `dp-accounting`.

Both accountants bound the privacy loss under adding or removing one record, over all uses composed:

- PLD: numerical composition of privacy loss distributions (Koskela et al. 2020, arXiv 1906.03049; discretised by
  "connect the dots", Doroshenko et al. 2022, arXiv 2207.04380). Losses are rounded so that the result stays an upper
  bound. The grid is as coarse as costs about 0.1 % of epsilon: rounding to a grid of width h spreads the loss of one
  use by at most h, so `uses` of them add about uses h^2 / 2 to epsilon.
- RDP: Mironov, Talwar & Zhang 2019, arXiv 1908.10530, at the orders 1.1, 1.2 ... 10.9 and 12 ... 63, converted by
  epsilon = min over alpha of rdp + log((alpha - 1) / alpha) - (log delta + log alpha) / (alpha - 1)
  (Canonne, Kamath & Steinke 2020, arXiv 2004.00010, proposition 12).

The library adds the absolute values of the terms of a fractional order's series, of which some are negative: epsilon
by RDP is up to 1 % too large.

Deviations: RDP is evaluated at every eighth order and then at those around the best; any set of orders gives an upper
bound, and the tests find the same minimum as at all orders.
"""

import logging
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from typing import Literal

from fedloom.base import extras
from fedloom.base.errors import ConfigError

__all__ = [
    "LARGEST_MULTIPLIER",
    "ORDERS",
    "SMALLEST_MULTIPLIER",
    "Accountant",
    "Spending",
    "calibrate",
    "checked_delta",
    "composed",
    "epsilon",
    "uses_within",
]

Accountant = Literal["pld", "rdp"]

LARGEST_MULTIPLIER = 1000.0
"""The most noise that calibration tries: a thousand times the clipping norm hides any contribution."""

SMALLEST_MULTIPLIER = 1e-4
"""The least noise that is accounted for: one use of less costs an epsilon of some 10^8, which no number here holds."""

ORDERS = (*(1 + tenths / 10 for tenths in range(1, 100)), *(float(order) for order in range(12, 64)))

_WEAKEST_DELTA = 1e-3  # that a run gets without having asked for it: n^-1.1 of 534 records

_ROUGH_ORDERS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 63.0)  # whole numbers cost a millisecond
_TOLERANCE = 1e-3  # of calibration, relative to the multiplier
_KEPT = 4096  # results: a suite asks for the same ones in each of its runs


def checked_delta(asked: float, population: int) -> float:
    """Return the delta of so many records, by default n^-1.1; one that promises too little is refused."""
    delta = asked or population**-1.1
    if not asked and delta > _WEAKEST_DELTA:
        raise ConfigError(
            f"privacy.delta: found n^-1.1 = {delta:.4g}, the default, for {population} records, allowed without "
            f"being asked for is at most {_WEAKEST_DELTA:g}: it is the chance that the promise fails; set a "
            f"smaller one, for instance {min(1e-3, 0.1 / population):.0e}."
        )
    if delta * population >= 1:
        raise ConfigError(
            f"privacy.delta: found {delta:.3g} for {population} records, allowed is < 1/n = {1 / population:.3g}: "
            "else a record may be published whole; set a smaller one."
        )
    return delta


@dataclass(frozen=True)
class Spending:
    """Uses of one subsampled Gaussian mechanism."""

    rate: float
    noise_multiplier: float
    uses: int


def epsilon(accountant: Accountant, *, rate: float, noise_multiplier: float, uses: int, delta: float) -> float:
    """Return the epsilon of so many uses: an upper bound at that delta; infinite without noise."""
    return composed(accountant, [Spending(rate, noise_multiplier, uses)], delta=delta)


def composed(accountant: Accountant, parts: Sequence[Spending], *, delta: float) -> float:
    """Return an upper bound on the epsilon of all parts on the same data together; infinite without noise."""
    return _composed(accountant, tuple(part for part in parts if part.uses and part.rate), delta)


@lru_cache(_KEPT)
def _composed(accountant: Accountant, parts: tuple[Spending, ...], delta: float) -> float:
    if not parts:
        return 0.0
    if any(part.noise_multiplier < SMALLEST_MULTIPLIER for part in parts):
        return math.inf
    return _rdp(parts, delta) if accountant == "rdp" else _pld(parts, delta)


@lru_cache(_KEPT)
def calibrate(accountant: Accountant, target: float, *, rate: float, uses: int, delta: float) -> float:
    """Return the least noise multiplier, to 0.1 % from above, whose epsilon after so many uses is at most `target`.

    A target that even `LARGEST_MULTIPLIER` does not reach is refused.
    """

    @cache
    def excess(log_multiplier: float) -> float:
        multiplier = math.exp(log_multiplier)
        found = epsilon(accountant, rate=rate, noise_multiplier=multiplier, uses=uses, delta=delta)
        return math.log(max(found, 1e-9) / target)

    def rough_excess(log_multiplier: float) -> float:
        found, _ = _rdp_at(_ROUGH_ORDERS, [Spending(rate, math.exp(log_multiplier), uses)], delta)
        return math.log(max(found, 1e-9) / target)

    top = math.log(LARGEST_MULTIPLIER)
    start = top if rough_excess(top) > 0 else _edge(rough_excess, *_bracket(rough_excess, 0.0, 2.0, top), _TOLERANCE)
    fits, fails = _bracket(excess, start, 0.1, top)
    if fits > top:
        least = target * math.exp(excess(top))
        raise ConfigError(
            f"privacy.epsilon: found {target:g}, not reachable in {uses} uses at a sampling rate of {rate:.3g} and "
            f"delta {delta:.3g}; the smallest is {least:.3g}: raise epsilon, or lower rounds, steps or batch."
        )
    return math.exp(_edge(excess, fits, fails, _TOLERANCE))


@lru_cache(_KEPT)
def uses_within(
    accountant: Accountant, target: float, *, rate: float, noise_multiplier: float, delta: float, planned: int
) -> int:
    """Return the largest number of uses whose epsilon is at most `target`, or ten times the planned ones."""

    @cache
    def excess(uses: float) -> float:
        found = epsilon(accountant, rate=rate, noise_multiplier=noise_multiplier, uses=round(uses), delta=delta)
        return found - target

    fits, fails, most = 0, planned, 10 * planned
    while excess(fails) <= 0:
        if fails == most:
            return most
        fits, fails = fails, min(2 * fails, most)
    return round(_edge(excess, fits, fails, 1.0))


def _bracket(excess: Callable[[float], float], start: float, step: float, top: float) -> tuple[float, float]:
    """Return a point where a falling function is <= 0 and one below it where it is not; the first is > top if none."""
    fits = fails = start
    if excess(start) > 0:
        while fits <= top and excess(fits) > 0:
            fits, fails, step = (min(top, fits + step) if fits < top else math.inf), fits, 2 * step
        return fits, fails
    while excess(fails) <= 0:
        fits, fails, step = fails, fails - step, 2 * step
    return fits, fails


def _edge(excess: Callable[[float], float], fits: float, fails: float, step: float) -> float:
    """Return the point with excess <= 0 beside the one, at most `step` further, with excess > 0.

    Interpolation between two ends, the value at the end that stays being halved (the Illinois method): few calls, as
    epsilon is nearly a power of the multiplier and of the number of uses.
    """
    below, above = excess(fits), excess(fails)
    while abs(fits - fails) > 1.5 * step:
        cells = math.ceil(abs(fits - fails) / step)
        cell = min(max(round(cells * above / (above - below)), 1), cells - 1)
        middle = fails + (fits - fails) * cell / cells
        value = excess(middle)
        if value <= 0:
            fits, below, above = middle, value, above / 2
        else:
            fails, above, below = middle, value, below / 2
    return fits


def _rdp(parts: Sequence[Spending], delta: float) -> float:
    _, best = _rdp_at(ORDERS[::8], parts, delta)
    place = ORDERS.index(best)
    around = ORDERS[max(0, place - 7) : place + 8]
    return _rdp_at(around, parts, delta)[0]


def _rdp_at(orders: Sequence[float], parts: Sequence[Spending], delta: float) -> tuple[float, float]:
    """Return epsilon and the order at which it is least."""
    library = extras.library("dp_accounting", "privacy")
    with _quiet():
        accountant = library.rdp.RdpAccountant(orders)
        for part in parts:
            event = library.PoissonSampledDpEvent(part.rate, library.GaussianDpEvent(part.noise_multiplier))
            accountant.compose(event, part.uses)
        found, order = accountant.get_epsilon_and_optimal_order(delta)
    return float(found), float(order)


def _pld(parts: Sequence[Spending], delta: float) -> float:
    losses = extras.library("dp_accounting.pld.privacy_loss_distribution", "privacy")
    parts = [_one_use(part) if part.rate == 1 else part for part in parts]
    rough = max(_rdp_at(_ROUGH_ORDERS, parts, delta)[0], 1e-3)
    uses = sum(part.uses for part in parts)
    width = min(math.sqrt(1e-3 * rough * min(1, rough) / uses), rough / 200)
    try:
        composed_parts = [
            losses.from_gaussian_mechanism(
                part.noise_multiplier, sampling_prob=part.rate, value_discretization_interval=width
            ).self_compose(part.uses)
            for part in parts
        ]
        return float(reduce(lambda one, other: one.compose(other), composed_parts).get_epsilon_for_delta(delta))
    except (OverflowError, MemoryError) as error:
        raise ConfigError(
            f"privacy: the accountant 'pld' cannot hold an epsilon of about {rough:.3g} ({error}); raise "
            "privacy.noise_multiplier."
        ) from error


def _one_use(part: Spending) -> Spending:
    """Return the one Gaussian that so many without sampling compose to."""
    return Spending(1.0, part.noise_multiplier / math.sqrt(part.uses), 1)


@contextmanager
def _quiet() -> Generator[None]:
    """Silence the library's notes on orders that it leaves out: epsilon is the least over the others."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
