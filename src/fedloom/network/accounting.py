"""What a node counts of its clients' privacy: its own journal decides, whatever a server says was spent.

Epsilon of one run is the accountant's over the uses in the journal, which are written down before a training begins.
Runs on the same client's data add up (basic composition, Dwork and Roth, 2014, Theorem 3.16): epsilons and deltas are
summed, which is never too little.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, RunError
from fedloom.base.files import file_name, json_sha256, write_atomic
from fedloom.contracts.federated import Plan, PrivacyBudget, Work
from fedloom.network.journal import Journal
from fedloom.network.policy import PrivacyPolicy

__all__ = ["NodeAccounts", "clip_of", "epsilon_of", "uses_of_round"]


def uses_of_round(plan: Plan, client: str) -> int:
    """Return how often a round uses a client's data."""
    return plan.steps.get(client, plan.local.steps) if plan.mechanism.covers().per_example else 1


def clip_of(plan: Plan, budget: PrivacyBudget) -> float:
    """Return the largest norm of a contribution: the mechanism's, or that of the rows of a sum of whole numbers."""
    return budget.of_sum.norm if budget.of_sum else plan.mechanism.bound()


def epsilon_of(plan: Plan, budget: PrivacyBudget, uses: int) -> float:
    """Return the epsilon that counts after so many uses."""
    return next(iter(plan.mechanism.spent(budget, uses).values())) if uses else 0.0


@dataclass(frozen=True)
class NodeAccounts:
    """The accounts of a node's clients over all runs, in the node's folder."""

    folder: Path
    policy: PrivacyPolicy

    def before(self, run: str, client: str, work: Work, journal: Journal) -> tuple[int, dict[str, Any]]:
        """Return the uses so far and what the ledger is told; write down the coming ones, or refuse: ConfigError."""
        plan, unit = work.plan, work.plan.mechanism.covers()
        if not unit.private:
            return 0, {"noise": "none"}
        if unit.at_server:
            return 0, {"noise": "added by the server to the sum; what leaves this node has none"}
        budget, spent = plan.budgets[client], journal.uses().get(client, 0)
        if spent == 0 and journal.last_round(client) >= 0:
            raise RunError(
                f"{journal.folder / 'uses.json'}: missing, but rounds of client '{client}' were answered; restore it: "
                "without it nothing is counted."
            )
        coming = min(uses_of_round(plan, client), budget.max_uses - spent)
        if coming <= 0:
            raise ConfigError(f"privacy: client '{client}' was used {spent} times, allowed are {budget.max_uses}.")
        epsilon, before = epsilon_of(plan, budget, spent + coming), self.of_others(run, client)
        if epsilon + before > self.policy.max_epsilon:
            raise ConfigError(
                f"privacy.max_epsilon: this round would bring client '{client}' to {epsilon + before:.3f}, "
                f"{before:.3f} of it from other runs; allowed is {self.policy.max_epsilon:g}."
            )
        journal.count(client, coming)
        self._write(run, client, epsilon, budget.delta)
        return spent, {
            "noise": plan.mechanism.name,
            "unit": unit.name,
            "clip": clip_of(plan, budget),
            "noise_multiplier": budget.noise_multiplier,
            "uses": spent + coming,
            "epsilon": epsilon + before,
            "delta": budget.delta + self._others(run, client)[1],
        }

    def of_others(self, run: str, client: str) -> float:
        """Return the epsilon that other runs have spent of a client's data."""
        return self._others(run, client)[0]

    def _others(self, run: str, client: str) -> tuple[float, float]:
        paths = (self.folder / "runs").glob(f"*/account-{file_name(client)}.json")
        found = [_read(path) for path in sorted(paths) if path.parent.name != run]
        return sum(epsilon for epsilon, _ in found), sum(delta for _, delta in found)

    def _write(self, run: str, client: str, epsilon: float, delta: float) -> None:
        record = {"epsilon": epsilon, "delta": delta}
        path = self.folder / "runs" / run / f"account-{file_name(client)}.json"
        write_atomic(path, json.dumps(record | {"sha256": json_sha256(record)}))


def _read(path: Path) -> tuple[float, float]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.pop("sha256") != json_sha256(record):
            raise ValueError("its hash does not fit")
        return float(record["epsilon"]), float(record["delta"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: is not what this node wrote ({error}); restore it from a copy.") from error
