"""Clipped contributions, Gaussian noise on their sum, a fixed denominator: DP-SGD and DP-FedAvg.

Abadi et al. 2016, Deep Learning with Differential Privacy, https://arxiv.org/abs/1607.00133, algorithm 1 (a
contribution is the gradient of an example); McMahan et al. 2018, Learning Differentially Private Recurrent Language
Models, https://arxiv.org/abs/1710.06963, algorithm 1 with the fixed-denominator estimator (a contribution is the row of
a client). With C the clipping norm, z the noise multiplier and m the expected number of contributions,

    released = (sum of min(1, C / |g|) g  +  z C N(0, I)) / m.

The clipping norm may follow a quantile q of the norms (Andrew et al. 2021, https://arxiv.org/abs/1905.03871, algorithm
1): C <- C exp(-rate (b - q)), where b is the noisy share of contributions inside C. The count takes a part of the
noise's budget: it gets noise sigma_b, and the sum the larger multiplier (z^-2 - (2 sigma_b)^-2)^-1/2, so that both
together cost what z costs (their theorem 1).

Deviations: contributions are sampled by Poisson's rule and m is their expected number, not the drawn one; each counts
as +1/2 inside and -1/2 outside around a share of 1/2, so that one of them moves the count by 1/2. The noise of
`client_local` lies on each row, and its cost is stated for replacing the row by any other: the accountant sees half the
multiplier. See docs/privacy.md.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Fraction, NonNegative, Positive, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.federated import Earlier, Mechanism, Noise, PrivacyBudget
from fedloom.contracts.messages import WholeSum
from fedloom.contracts.privacy import UNITS, Unit
from fedloom.federated.privacy import _accounting as accounting

__all__ = ["Gaussian"]


@plugin("gaussian")
class Gaussian(Mechanism):
    """Gaussian noise for examples or for whole clients."""

    needs: ClassVar[tuple[str, ...]] = ("dp_accounting",)

    unit: Literal["example", "client", "client_local"] = "example"
    """Whose contribution is protected: an example's, a client's from readers of the result, or from the server too."""
    clip: Positive = 1.0
    """Largest norm of a contribution; the first one if it adapts."""
    clipping: Literal["global", "per_matrix"] = "global"
    """Whether the norm is that of all L blocks together, or each is clipped to clip / sqrt(L)."""
    epsilon: NonNegative = 8.0
    """Budget of the whole run; 0 sets none."""
    noise_multiplier: NonNegative = 0.0
    """Standard deviation of the noise over `clip`; 0 calibrates it, so that all planned uses cost `epsilon`."""
    delta: Fraction = 0.0
    """Probability with which the guarantee may fail; 0 stands for n^-1.1, n being the number of records, and is refused
    where that is above 1e-3."""
    accountant: Literal["pld", "rdp"] = "pld"
    """Which accountant counts; both are reported."""
    noise: Literal["seeded", "system"] = "seeded"
    """Where noise comes from: named seeds are for simulation alone, whoever knows them can take the noise off."""
    clip_quantile: Fraction = 0.0
    """Share of contributions that an adaptive clipping norm leaves whole; 0 keeps the norm fixed."""
    clip_rate: Positive = 0.2
    """Learning rate of the adaptive norm."""
    clip_count_noise: NonNegative = 0.0
    """Standard deviation of the noise on the count; 0 stands for a twentieth of the expected contributions."""

    def check(self) -> None:
        """Refuse a run without noise, and an adaptive norm where no server sees the count."""
        if self.epsilon == 0 and self.noise_multiplier == 0:
            raise ConfigError("epsilon: found 0 beside noise_multiplier = 0, allowed is one of them > 0; set epsilon.")
        if 0 < self.noise_multiplier < accounting.SMALLEST_MULTIPLIER:
            raise ConfigError(
                f"noise_multiplier: found {self.noise_multiplier:g}, allowed is 0 (calibrated) or a number >= "
                f"{accounting.SMALLEST_MULTIPLIER:g}: less is no noise that an accountant could count."
            )
        if self.clip_quantile > 0 and self.unit == "client_local":
            raise ConfigError(
                "clip_quantile: an adaptive norm needs a count over clients, which unit = 'client_local' does not "
                "give the server; leave it out."
            )

    def covers(self) -> Unit:
        """Return the unit."""
        return UNITS[self.unit]

    def budget(self, *, population: int, expected: float, uses: int, of_sum: WholeSum | None = None) -> PrivacyBudget:
        """Return the budget of all planned uses; an impossible delta, epsilon or adaptive norm is refused."""
        if population < 1 or uses < 1 or not expected > 0:
            raise ConfigError(
                f"privacy: found {population} records, {expected:g} expected in each of {uses} uses, allowed are "
                "numbers > 0; give this owner data and steps."
            )
        rate = 1.0 if self.unit == "client_local" else min(1.0, expected / population)
        budget = self._planned(rate, accounting.checked_delta(self.delta, population), uses)
        if self.clip_quantile > 0:
            self._multiplier_of_sum(budget.noise_multiplier, expected)
        return budget

    def _planned(self, rate: float, delta: float, uses: int) -> PrivacyBudget:
        if self.noise_multiplier == 0:
            least = accounting.calibrate(self.accountant, self.epsilon, rate=rate, uses=uses, delta=delta)
            return PrivacyBudget(rate, least * self._reach(), delta, uses)
        budget = PrivacyBudget(rate, self.noise_multiplier, delta, sys.maxsize)
        if self.epsilon == 0:
            self.spent(budget, uses)  # what cannot be accounted for is refused before it is spent
            return budget
        seen = self.noise_multiplier / self._reach()
        allowed = accounting.uses_within(
            self.accountant, self.epsilon, rate=rate, noise_multiplier=seen, delta=delta, planned=uses
        )
        if allowed == 0:
            raise ConfigError(
                f"privacy.noise_multiplier: found {self.noise_multiplier:g}, with which one use alone costs more than "
                f"epsilon = {self.epsilon:g}; raise it, or leave it out to have it calibrated."
            )
        return replace(budget, max_uses=allowed)

    def spent(self, budget: PrivacyBudget, uses: int, before: Sequence[Earlier] = ()) -> dict[str, float]:
        """Return epsilon by both accountants, the one that counts first; infinite beside what bounds no such record."""
        kinds: tuple[accounting.Accountant, ...] = ("pld", "rdp") if self.accountant == "pld" else ("rdp", "pld")
        own = accounting.Spending(budget.rate, budget.noise_multiplier / self._reach(), uses)
        parts = [own, *(part for one in before if (part := self._seen(one)))]
        if len(parts) <= len(before):
            return dict.fromkeys(kinds, math.inf)
        return {kind: accounting.composed(kind, parts, delta=budget.delta) for kind in kinds}

    def _seen(self, earlier: Earlier) -> accounting.Spending | None:
        """Return what earlier uses let out of a record of this unit; None where their unit does not bound it.

        One example changes a client's row to another row, 2 C away at most; that is bounded by half the multiplier
        without sampling, as a draw that left the client out would have let out nothing.
        """
        if earlier.unit == self.unit:
            return accounting.Spending(earlier.rate, earlier.noise_multiplier / self._reach(), earlier.uses)
        if self.unit == "example" and earlier.unit in ("client", "client_local"):
            return accounting.Spending(1.0, earlier.noise_multiplier / 2, earlier.uses)
        return None

    def bound(self) -> float:
        """Return the clipping norm."""
        return self.clip

    def init(self) -> Tree:
        """Return the clipping norm if it adapts."""
        return {"clip": torch.tensor(self.clip)} if self.clip_quantile > 0 else {}

    def scales(self, norms_LE: Tensor, state: Tree) -> Tensor:
        """Return min(1, limit / norm) for each contribution, or for each block of each one; 1 for a norm of zero.

        A clipping norm that is kept may have a value for each contribution [E].
        """
        clip_E = state["clip"].to(norms_LE) if self.clip_quantile > 0 else self.clip
        if self.clipping == "per_matrix":
            return (clip_E / math.sqrt(len(norms_LE)) / norms_LE).clamp(max=1)
        return (clip_E / norms_LE.norm(dim=0)).clamp(max=1).expand_as(norms_LE)

    def spread(self, budget: PrivacyBudget, state: Tree, expected: float) -> float:
        """Return z C, with the clipping norm and the multiplier of the sum as they stand if the norm adapts."""
        if self.clip_quantile > 0:
            return float(state["clip"]) * self._multiplier_of_sum(budget.noise_multiplier, expected)
        return self.clip * budget.noise_multiplier

    def release(
        self,
        sum_P: Tensor,
        *,
        inside: float,
        total: int,
        expected: float,
        budget: PrivacyBudget,
        state: Tree,
        noise: Noise,
    ) -> tuple[Tensor, Tree]:
        """Return (sum + z C noise) / expected, and the clipping norm of the next use if it adapts."""
        spread = self.spread(budget, state, expected)
        if self.clip_quantile > 0:
            share = 0.5 + (inside - total / 2 + self._count_noise(expected) * float(noise(1))) / expected
            state = {"clip": state["clip"] * math.exp(-self.clip_rate * (share - self.clip_quantile))}
        if spread > 0:
            sum_P = sum_P + spread * noise(sum_P.numel()).to(sum_P)
        return sum_P / expected, state

    def deterministic(self) -> bool:
        """Return whether the noise is seeded."""
        return self.noise == "seeded"

    def source(self, *names: str | int) -> Noise:
        """Return a source of noise, seeded by the names in a simulation."""
        if self.noise == "system":
            return rng.system_normal
        return rng.named_normal(*names)

    def _reach(self) -> float:
        """Return how far one contribution can move the sum, in clipping norms: one that is replaced, twice as far."""
        return 2.0 if self.unit == "client_local" else 1.0

    def _count_noise(self, expected: float) -> float:
        return self.clip_count_noise or expected / 20

    def _multiplier_of_sum(self, multiplier: float, expected: float) -> float:
        """Return (z^-2 - (2 sigma_b)^-2)^-1/2, the noise multiplier of the sum beside a noisy count."""
        limit = 2 * self._count_noise(expected)
        if multiplier >= limit:
            raise ConfigError(
                f"privacy.clip_quantile: found a noise multiplier of {multiplier:.3g}, allowed beside a count with "
                f"noise {limit / 2:.3g} is < {limit:.3g}; raise clip_count_noise, or fix the clipping norm."
            )
        return 0.0 if multiplier == 0 else (multiplier**-2 - limit**-2) ** -0.5
