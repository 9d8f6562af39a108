"""The mean of all rows but the attackers': what a defence that knew them would reach.

Safety attack and defence in federated instruction tuning, https://arxiv.org/abs/2406.10630, has no such row in its
tables; it is the upper end of a comparison and no defence. It reads no truth of the simulation: from the settings of
the attack, given here once more, it draws the attackers anew (`federated.attackers`).

Deviations: none, as nothing is published. Where every row of a round is malicious the aggregate is a row of zeros. Rows
without names are nobody's, and stay.
"""

import math

from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Count, Positive, plugin
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._rows import Found, OfRows, selected
from fedloom.federated.attackers import drawn_attackers

__all__ = ["OracleRemoval"]


@plugin("oracle_removal")
class OracleRemoval(OfRows):
    """The mean of the honest clients' rows."""

    clients: Positive = 1.0
    """The attackers: from 1 on their number, below 1 their share, as the attack says."""
    seed: Count | None = None
    """Of their draw, as the attack says; left out: the run's."""

    def check(self) -> None:
        """Refuse half a client."""
        if self.clients >= 1 and self.clients != math.floor(self.clients):
            raise ConfigError(f"aggregator.clients: found {self.clients:g}, from 1 on allowed is a whole number.")

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the honest rows."""
        seed = frame.seed if self.seed is None else self.seed
        known = drawn_attackers(frame.population, self.clients, seed) if frame.population else ()
        clients = frame.clients or ("",) * len(rows_NP)
        keep = [index for index, client in enumerate(clients) if client not in known]
        return selected(rows_NP, weight_N, frame, keep, reason="an attacker by the simulation's draw", found=Found())
