"""What a run has spent of its clients' privacy: a line of the ledger per client, and the same for tables and cards."""

import json
from dataclasses import replace
from typing import Any

from fedloom.contracts import Guard, Mechanism
from fedloom.files import write_atomic
from fedloom.rounds import Plan, State, spent_at_most
from fedloom.runs import RunDirectory

__all__ = ["privacy_card", "privacy_lines", "with_lost_uses", "write_ahead"]


def privacy_lines(plan: Plan, state: State) -> list[dict[str, Any]]:
    """Return what each guard has let pass so far, epsilon by both accountants; computed from uses alone.

    Uses are exact after a resume. With seeded noise they lie in the checkpoint, since a round that is done again sends
    the very same rows. With noise of the system it would send others: see `write_ahead`.
    """
    found: dict[tuple[Guard, int], dict[str, float]] = {}  # many clients are alike, and accounting takes a moment
    lines: list[dict[str, Any]] = []
    for name, guard in plan.guards.items():
        uses = state.spent.get(name, 0)
        if (guard, uses) not in found:
            found[guard, uses] = plan.mechanism.spent(guard, uses)
        lines.append(
            {
                "round": state.round,
                "client": name,
                "what": f"privacy spent on {'all clients' if plan.protects == 'client' else 'this client'}",
                "sampling_rate": guard.rate,
                "noise_multiplier": guard.noise_multiplier,
                "settings": dict(vars(plan.mechanism)),
                "delta": guard.delta,
                "uses": uses,
                "uses_allowed": guard.allowed,
                "epsilon": found[guard, uses],
            }
        )
    return lines


def privacy_card(plan: Plan, lines: list[dict[str, Any]]) -> str:
    """Return the JSON that tables and model cards read: the unit, and the largest epsilon over all clients."""
    worst = max(lines, key=lambda line: next(iter(line["epsilon"].values())))
    return json.dumps(
        {
            "mechanism": plan.mechanism.name,
            "settings": dict(vars(plan.mechanism)),
            "unit": plan.protects,
            "epsilon": worst["epsilon"],
            "delta": max(line["delta"] for line in lines),
            "smallest_noise_multiplier": min(line["noise_multiplier"] for line in lines),
            "uses": max(line["uses"] for line in lines),
            "guards": len(lines),
        },
        indent=1,
    )


def write_ahead(directory: RunDirectory, plan: Plan, state: State) -> None:
    """Write down what the coming round may spend before any row leaves: a round that is lost was spent all the same."""
    if plan.guards and not plan.mechanism.repeats():
        write_atomic(directory.path / "spending.json", json.dumps(spent_at_most(plan, state)))


def with_lost_uses(directory: RunDirectory, mechanism: Mechanism, state: State) -> State:
    """Return the state of a checkpoint with the uses of rounds that were begun after it and have to be done again."""
    path = directory.path / "spending.json"
    if mechanism.repeats() or not path.is_file():
        return state
    begun = json.loads(path.read_text(encoding="utf-8"))
    names = {**state.spent, **begun}
    return replace(state, spent={name: max(state.spent.get(name, 0), begun.get(name, 0)) for name in names})
