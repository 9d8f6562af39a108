"""Whole-number noise that clients add each by itself, so that the server never has a sum without noise.

Agarwal, Kairouz & Liu 2021, The Skellam Mechanism for Differentially Private Federated Learning,
https://arxiv.org/abs/2110.04995, algorithm 1 without its rotation: each client scales its row to the norm of the
aggregator, rounds it to whole numbers, and adds Skellam noise of variance v / n, where n is the least number of honest
clients in a sum that is opened. What the server decodes is their sum modulo 2^32, with noise of at least v:

    sum over clients of (round(x_u / step) + Skellam(v / n))   modulo 2^32.

Protected is whether a client's row is in the sum or zero, against the server too and whoever colludes with it, as far
as the secure sum holds (docs/secure_sums.md). An attempt at a sum that is made again, with new masks, has the same
noise. The cost is counted in `secure_sum/accountant.py` by theorem 3.5 there; the noise multiplier z stands for
v = (z D2)^2, D2 being the norm in steps and what rounding adds.

Deviations: no random rotation, so that the absolute norm is bounded through the Euclidean one; rounding to the nearest,
whose error is part of D2, in place of conditional stochastic rounding. Nothing is gained by sampling clients, and uses
on weights that were tuned with another mechanism are not composed: epsilon is then infinite.
"""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Fraction, NonNegative, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.messages import Earlier, PrivacyBudget, WholeSum
from fedloom.contracts.privacy import UNITS, ClientSide, Mechanism, Unit
from fedloom.federated.aggregators.secure_sum import as_bytes, as_numbers
from fedloom.federated.privacy._accounting import checked_delta
from fedloom.secure_sum import accountant
from fedloom.secure_sum.numbers import Numbers
from fedloom.secure_sum.skellam import Bits, Noise, add_noise, named_bits

__all__ = ["Skellam"]


@plugin("skellam")
class Skellam(Mechanism):
    """Noise of many clients in a secure sum."""

    unit: Literal["client_sum"] = "client_sum"
    """Whose contribution is protected: a client's row in the sum, from the server too."""
    epsilon: NonNegative = 8.0
    """Budget of the whole run; 0 sets none."""
    noise_multiplier: NonNegative = 0.0
    """Standard deviation of the least noise on a sum over the most that one row can change it; 0 calibrates it, so that
    all planned rounds cost `epsilon`."""
    delta: Fraction = 0.0
    """Probability with which the guarantee may fail; 0 stands for n^-1.1 of n clients, and is refused where that is
    above 1e-3."""
    noise: Literal["seeded", "system"] = "seeded"
    """Where noise comes from: named seeds are for simulation alone, whoever knows them can take the noise off."""

    def check(self) -> None:
        """Refuse a run without noise."""
        if self.epsilon == 0 and self.noise_multiplier == 0:
            raise ConfigError("epsilon: found 0 beside noise_multiplier = 0, allowed is one of them > 0; set epsilon.")

    def covers(self) -> Unit:
        """Return the unit."""
        return UNITS[self.unit]

    def budget(self, *, population: int, expected: float, uses: int, of_sum: WholeSum | None = None) -> PrivacyBudget:
        """Return the budget of all planned rounds; an impossible delta, epsilon or sum is refused."""
        if of_sum is None:
            raise ConfigError("privacy: noise of clients lies on whole numbers; set aggregator = 'secure_sum'.")
        delta = checked_delta(self.delta, population)
        if self.noise_multiplier == 0:
            numbers = _numbers(of_sum)
            variance = accountant.least_variance(
                numbers, of_sum.numbers, target=self.epsilon, rounds=uses, delta=delta, least=of_sum.least
            )
            multiplier = math.sqrt(variance) / numbers.reach(of_sum.numbers) * (1 + 1e-9)  # never less by rounding
            return PrivacyBudget(1.0, multiplier, delta, uses, of_sum)
        budget = PrivacyBudget(1.0, self.noise_multiplier, delta, sys.maxsize, of_sum)
        accountant.check_room(_numbers(of_sum), _variance(budget), of_sum.least)
        return budget if self.epsilon == 0 else self._within(budget)

    def _within(self, budget: PrivacyBudget) -> PrivacyBudget:
        """Return the budget with as many uses as cost no more than epsilon."""
        fits, fails = 0, 1
        while self._cost(budget, fails) <= self.epsilon:
            fits, fails = fails, 2 * fails
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self._cost(budget, middle) <= self.epsilon else (fits, middle)
        if not fits:
            raise ConfigError(
                f"privacy.noise_multiplier: found {self.noise_multiplier:g}, with which one round alone costs more "
                f"than epsilon = {self.epsilon:g}; raise it, or leave it out to have it calibrated."
            )
        return PrivacyBudget(budget.rate, budget.noise_multiplier, budget.delta, fits, budget.of_sum)

    def spent(self, budget: PrivacyBudget, uses: int, before: Sequence[Earlier] = ()) -> dict[str, float]:
        """Return epsilon after so many rounds, by Renyi divergence; infinite beside earlier uses of these data."""
        return {"rdp": math.inf if before else self._cost(budget, uses)}

    def _cost(self, budget: PrivacyBudget, uses: int) -> float:
        if not uses:
            return 0.0
        whole = _sum_of(budget)
        return accountant.spent(
            _numbers(whole),
            whole.numbers,
            variance=_variance(budget),
            rounds=uses,
            delta=budget.delta,
            least=whole.least,
        )

    def spread(self, budget: PrivacyBudget, state: Tree, expected: float) -> float:
        """Return the standard deviation of the least noise on each number of a sum, in the numbers' own unit."""
        return math.sqrt(_variance(budget)) * _numbers(_sum_of(budget)).step

    def deterministic(self) -> bool:
        """Return whether the noise is seeded."""
        return self.noise == "seeded"

    def bits(self, *names: str | int) -> Bits:
        """Return a source of random bytes, told by the names in a simulation."""
        return os.urandom if self.noise == "system" else named_bits(*names)

    def client_side(
        self, budget: PrivacyBudget | None, whose: tuple[str | int, ...], state: Tree, spent: int
    ) -> ClientSide:
        """Return what adds this client's share of the noise."""
        side = _Adding(self, budget, whose, state, spent)
        side.required_budget()
        return side


@dataclass
class _Adding(ClientSide):
    """Adds one client's noise to its row of whole numbers."""

    def summand(self, packet: Tensor) -> Tensor:
        """Return the row with this client's share of the noise, modulo 2^32."""
        mechanism, budget = self.mechanism, self.required_budget()
        if not isinstance(mechanism, Skellam):
            raise ConfigError(f"privacy: '{mechanism.name}' adds no noise to whole numbers.")
        row_S = as_numbers(packet).copy()
        noise = Noise(_variance(budget), _sum_of(budget).least)
        add_noise(row_S, noise, mechanism.bits("skellam", *self.whose))
        return as_bytes(row_S)


def _sum_of(budget: PrivacyBudget) -> WholeSum:
    if budget.of_sum is None:
        raise ConfigError("privacy: a budget of noise in a sum that does not tell of the sum.")
    return budget.of_sum


def _numbers(whole: WholeSum) -> Numbers:
    return Numbers(whole.clients, whole.bits, whole.clip, whole.norm, counted=False)


def _variance(budget: PrivacyBudget) -> float:
    """Return the variance of the least noise on a sum, in steps squared."""
    whole = _sum_of(budget)
    return (budget.noise_multiplier * _numbers(whole).reach(whole.numbers)) ** 2
