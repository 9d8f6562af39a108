"""What a run has spent of its clients' privacy: accounts for the ledger, the card, and the lineage of its result."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedloom.base.config import table_of
from fedloom.base.errors import RunError
from fedloom.contracts.federated import Plan, PrivacyBudget
from fedloom.contracts.lineage import NONE, Lineage, Owner, Training
from fedloom.federated.rounds import State, spent_at_most
from fedloom.runs.accounts import account_line, privacy_card, read_spending, write_spending
from fedloom.runs.directory import RunDirectory
from fedloom.runs.origins import Origin
from fedloom.runs.prepared import Prepared
from fedloom.runs.stage import Stage

__all__ = ["lineage_of_result", "privacy_lines", "refuse_forgotten", "with_lost_uses", "worst_account", "write_ahead"]


def privacy_lines(plan: Plan, state: State, origins: Mapping[str, Origin]) -> list[dict[str, Any]]:
    """Return what each budget has let pass so far and before the run, epsilon by both accountants; from uses alone.

    Uses are exact after a resume. With seeded noise they lie in the checkpoint, since a round that is done again sends
    the very same rows. With noise of the system it would send others: see `write_ahead`.
    """
    # Many clients are alike, and accounting takes a moment.
    found: dict[tuple[PrivacyBudget, int, Origin], dict[str, Any]] = {}
    lines: list[dict[str, Any]] = []
    for name, budget in plan.budgets.items():
        key = budget, state.spent.get(name, 0), origins.get(name, Origin())
        if key not in found:
            _, uses, origin = key
            found[key] = account_line(
                plan.mechanism, name, budget, uses, round=state.round, before=origin.before, broken=origin.broken
            )
        lines.append(found[key] | {"client": name})
    return lines


def worst_account(plan: Plan, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the card of the accounts: the unit, and the largest epsilon over all clients."""
    return privacy_card(plan.mechanism.name, plan.mechanism.covers().name, lines)


def write_ahead(directory: RunDirectory, plan: Plan, state: State) -> None:
    """Write down what the coming round may spend before any row leaves: a round that is lost was spent all the same."""
    if plan.budgets:
        write_spending(directory, spent_at_most(plan, state))


def refuse_forgotten(directory: RunDirectory) -> None:
    """Raise RunError if rounds were begun and no checkpoint is left: a new start would forget what they spent."""
    if read_spending(directory).uses and not directory.has_checkpoint:
        raise RunError(
            f"{directory.path / 'checkpoints'}: missing, but spending.json says that rounds were begun; restore it, or "
            "start a new run, which spends anew."
        )


def with_lost_uses(directory: RunDirectory, plan: Plan, state: State) -> State:
    """Return the state with the uses of rounds that were begun after it and have to be done again.

    Raises RunError if `spending.json` tells of fewer uses than the checkpoint.
    """
    if not plan.budgets:
        return state
    begun = read_spending(directory).uses
    if any(begun.get(name, 0) < uses for name, uses in state.spent.items()):
        raise RunError(
            f"{directory.path / 'spending.json'}: counts fewer uses of the clients' data than the checkpoint; restore "
            "it, or start a new run."
        )
    return state if plan.mechanism.deterministic() else replace(state, spent=dict(begun))


def lineage_of_result(directory: RunDirectory, ready: Prepared, stage: Stage, state: State) -> Lineage:
    """Return the lineage of what the stage has trained so far: that of its start, and its own."""
    plan, data = stage.plan, ready.division.fingerprints
    if plan.budgets:
        one_for_all = plan.budgets.get("")
        names = data if one_for_all else plan.budgets
        owners = tuple(
            _owner(
                name,
                data.get(name, ""),
                one_for_all or plan.budgets[name],
                state.spent.get("" if one_for_all else name, 0),
            )
            for name in names
        )
    else:
        owners = tuple(Owner(client, data[client]) for client in _trained_on(ready, stage))
    kind = (plan.mechanism.name, plan.mechanism.covers().name) if plan.budgets else (NONE, "nothing")
    return (*ready.lineage, Training(_identity(directory, ready, stage), *kind, owners))


def _owner(client: str, data: str, budget: PrivacyBudget, uses: int) -> Owner:
    return Owner(client, data, budget.rate, budget.noise_multiplier, budget.delta, uses)


def _trained_on(ready: Prepared, stage: Stage) -> list[str]:
    """Return the clients whose data the stage trains on; one in a single place has them all."""
    data = ready.division.fingerprints
    return [client for client in stage.plan.clients if client in data] or list(data)


def _identity(directory: RunDirectory, ready: Prepared, stage: Stage) -> str:
    """Return what tells this training from all others: runs that would release the same share it."""
    private = read_spending(directory).id if stage.plan.budgets else ""
    parts = table_of(ready.run), ready.start, sorted(ready.division.fingerprints.items()), stage.name, private
    return hashlib.sha256(repr(parts).encode()).hexdigest()
