"""The contract of differential privacy: how much of whom is let through, where, and what it costs.

A mechanism acts at two places, and hands out a side for each: `ClientSide` while a client trains and sends,
`ServerSide` while the rows of a round are taken in. What it protects is asked besides to refuse settings and to write
it down.

Shape letters as in `contracts`: P numbers in a row, E contributions, L blocks of parameters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Family
from fedloom.base.tree import Tree
from fedloom.contracts.messages import Earlier, PrivacyBudget, WholeSum

__all__ = ["UNITS", "ClientSide", "Curator", "Mechanism", "Noise", "ServerSide", "Unit"]

Noise = Callable[[int], Tensor]
"""Gives that many fresh standard normal numbers, float32 on the CPU."""


@dataclass(frozen=True)
class Unit:
    """Whose contribution is protected, and where."""

    name: str
    per_example: bool = False
    """Each example's gradient is clipped, and noise added, in every step of its client."""
    whole_client: bool = False
    """A client's row is clipped: whatever the client does is covered by it."""
    at_server: bool = False
    """The server clips the rows and adds noise to their sum, once for all clients; else clients do it themselves."""
    in_sum: bool = False
    """Each client adds a share of the noise, which is enough in the sum that alone is seen and nowhere else."""

    @property
    def private(self) -> bool:
        """Whether anything is protected."""
        return self.per_example or self.whole_client


UNITS = {
    unit.name: unit
    for unit in (
        Unit("nothing"),
        Unit("example", per_example=True),
        Unit("client", whole_client=True, at_server=True),
        Unit("client_local", whole_client=True),
        Unit("client_sum", whole_client=True, in_sum=True),
    )
}


class Mechanism(Family):
    """Differential privacy of contributions: each is clipped, their sum gets noise once, the denominator is fixed.

    A contribution is the gradient of one example or the row of one client. What has to be kept between uses, such as
    an adaptive clipping norm, lies in a tree that the caller carries.
    """

    folder = "fedloom.federated.privacy"

    def covers(self) -> Unit:
        """Return whose contribution is clipped, and where."""
        return UNITS["nothing"]

    def budget(self, *, population: int, expected: float, uses: int, of_sum: WholeSum | None = None) -> PrivacyBudget:
        """Return the budget of data of `population` records, `expected` of them in each of `uses` planned uses.

        `of_sum` is the sum that noise is added in, for a unit that is `in_sum`.
        """
        return PrivacyBudget(1.0, 0.0, 1.0, uses)

    def spent(self, budget: PrivacyBudget, uses: int, before: Sequence[Earlier] = ()) -> dict[str, float]:
        """Return the epsilon spent after so many uses, by accountant; the first one is the one that counts.

        What was spent `before` on the same data is composed with them; infinite where it cannot be.
        """
        return {}

    def init(self) -> Tree:
        """Return the state before the first use."""
        return {}

    def bound(self) -> float:
        """Return the largest norm that a contribution has after it was scaled, at the start."""
        return math.inf

    def scales(self, norms_LE: Tensor, state: Tree) -> Tensor:
        """Return factors [L, E] from the norms of E contributions in L blocks of parameters."""
        return torch.ones_like(norms_LE)

    def spread(self, budget: PrivacyBudget, state: Tree, expected: float) -> float:
        """Return the standard deviation of the noise on each number of the sum that `release` is given."""
        return 0.0

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
        """Return the noisy sum of clipped contributions over `expected`, and the new state.

        `inside` of `total` contributions were not clipped; where blocks are clipped one by one, each counts by its
        share of such blocks.
        """
        return sum_P / expected, state

    def deterministic(self) -> bool:
        """Return whether a use that is made again is the same use, because its noise is drawn by name."""
        return True

    def source(self, *names: str | int) -> Noise:
        """Return a source of noise: the system's, or in a simulation one seeded by the names."""
        raise ConfigError("privacy: this mechanism adds no noise.")

    def client_side(
        self, budget: PrivacyBudget | None, whose: tuple[str | int, ...], state: Tree, spent: int
    ) -> "ClientSide":
        """Return what is done at one client in a round, after `spent` uses of its data.

        `whose` names its draws: stream, round and client.
        """
        side, unit = ClientSide(self, budget, whose, state or self.init(), spent), self.covers()
        if unit.private and not unit.at_server:
            side.required_budget()
        return side

    def server_side(
        self, budget: PrivacyBudget | None, whose: tuple[str | int, ...], state: Tree, expected: float
    ) -> "ServerSide":
        """Return what is done at the server in a round in which `expected` clients come; `whose`: stream and round."""
        kind = Curator if self.covers().at_server else ServerSide
        return kind(self, budget or PrivacyBudget(1.0, 0.0, 1.0, 0), whose, state, expected)


@dataclass
class ClientSide:
    """What a mechanism does at one client in one round."""

    mechanism: Mechanism
    budget: PrivacyBudget | None
    """What protects this client's data; None where nothing at the client does."""
    whose: tuple[str | int, ...]
    state: Tree
    """What the mechanism keeps of this client between uses."""
    spent: int

    def steps(self, planned: int) -> int:
        """Return how many of the planned steps may be taken: a step is a use of examples."""
        if self.budget is None or not self.mechanism.covers().per_example:
            return planned
        return min(planned, self.budget.max_uses - self.spent)

    def draws(self, step: int) -> Noise:
        """Return what decides which examples a step draws; who takes part must stay as secret as the noise."""
        return self.mechanism.source("sampling", *self.whose, step)

    def release(self, sum_P: Tensor, *, inside: float, total: int, n_examples: int, step: int) -> Tensor:
        """Return the noisy mean gradient [P] from the sum of clipped ones, over their expected number."""
        budget = self.required_budget()
        noise = self.mechanism.source("noise", *self.whose, step)
        expected = budget.rate * n_examples
        mean_P, self.state = self.mechanism.release(
            sum_P, inside=inside, total=total, expected=expected, budget=budget, state=self.state, noise=noise
        )
        return mean_P

    def row(self, row_P: Tensor) -> Tensor:
        """Return the row as it may leave the client."""
        unit = self.mechanism.covers()
        if not unit.whole_client or unit.at_server or unit.in_sum:
            return row_P
        scale = self.mechanism.scales(row_P.norm().view(1, 1), self.state)
        noise = self.mechanism.source("noise", *self.whose)
        row_P, self.state = self.mechanism.release(
            row_P * scale.view(()),
            inside=float(scale >= 1),
            total=1,
            expected=1.0,
            budget=self.required_budget(),
            state=self.state,
            noise=noise,
        )
        return row_P

    def summand(self, packet: Tensor) -> Tensor:
        """Return a row of whole numbers, little-endian uint32 as bytes, as it may enter a sum that alone is seen."""
        return packet

    def required_budget(self) -> PrivacyBudget:
        """Return what protects this client's data; ConfigError where nothing does."""
        if self.budget is None:
            raise ConfigError(
                f"privacy: no budget counts what is spent on client '{self.whose[-1]}'; it takes no part."
            )
        return self.budget


@dataclass
class ServerSide:
    """What a mechanism does at the server in one round: nothing."""

    mechanism: Mechanism
    budget: PrivacyBudget
    whose: tuple[str | int, ...]
    state: Tree
    """What the mechanism keeps at the server."""
    expected: float

    def take(self, row_P: Tensor) -> Tensor:
        """Return a row as it enters the aggregate."""
        return row_P

    def release(self, mean_P: Tensor | None, size: int) -> Tensor | None:
        """Return the aggregate [P] as it may be used; None where no row came."""
        return mean_P


class Curator(ServerSide):
    """Clips rows, so that no client can evade it, and releases their noisy sum over the expected number of them."""

    inside = total = 0

    def take(self, row_P: Tensor) -> Tensor:
        """Return the row clipped."""
        scale = self.mechanism.scales(row_P.norm().view(1, 1), self.state).view(())
        self.total += 1
        self.inside += int(scale >= 1)
        return row_P * scale

    def release(self, mean_P: Tensor | None, size: int) -> Tensor:
        """Return the noisy mean, whoever came: without anybody it is noise alone."""
        sum_P = torch.zeros(size) if mean_P is None else mean_P * self.total
        noise = self.mechanism.source("noise", *self.whose)
        released_P, self.state = self.mechanism.release(
            sum_P,
            inside=self.inside,
            total=self.total,
            expected=self.expected,
            budget=self.budget,
            state=self.state,
            noise=noise,
        )
        return released_P
