"""What a run has spent of its clients' privacy: a line of the ledger per client, and the same for tables and cards."""

import json
from typing import Any

from fedloom.contracts import Guard
from fedloom.rounds import Plan, State

__all__ = ["privacy_card", "privacy_lines"]


def privacy_lines(plan: Plan, state: State) -> list[dict[str, Any]]:
    """Return what each guard has let pass so far, epsilon by both accountants; computed from uses alone.

    Uses are exact after a resume: they lie in the checkpoint, and a round that was not saved was never published.
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
