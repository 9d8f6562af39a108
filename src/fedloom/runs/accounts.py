"""What a run directory says of the privacy that was spent: its records are held against each other before any is read.

Three files tell of it: `spending.json` is written before a round may let anything out, `ledger.jsonl` holds an account
for each client, and `privacy.json` is their summary. A run whose `run.toml` says that it is private has all three. One
that is missing, or contradicts another, is refused: with it gone an epsilon would come out too small. They guard
against accidents and careless hands; somebody who forges all three alike forges the statement.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedloom.base.errors import RunError
from fedloom.base.files import json_sha256, write_atomic
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Earlier, Mechanism, PrivacyBudget
from fedloom.contracts.messages import WholeSum
from fedloom.runs.directory import DEPLOYMENT, RunDirectory

__all__ = [
    "ACCOUNTS",
    "SPENDING",
    "Spending",
    "account_line",
    "epsilons",
    "has_spent",
    "is_private",
    "largest_epsilon",
    "privacy_card",
    "read_spending",
    "restate",
    "spent_text",
    "stated_privacy",
    "write_card",
    "write_spending",
]

SPENDING = "spending.json"
ACCOUNTS = "accounts_sha256"
"""The entry of a card by which an edited ledger is told; it covers the clients' names and is not for others."""
_CARD = "privacy.json"


@dataclass(frozen=True)
class Spending:
    """The uses of each client's data (of all under "") that rounds which were begun may have made."""

    id: str
    """Drawn once for a directory whose noise no second run repeats; "" where noise is seeded."""
    uses: Mapping[str, int]

    @classmethod
    def new(cls, *, repeats: bool) -> "Spending":
        """Return what stands in a directory before the first round."""
        return cls("" if repeats else os.urandom(16).hex(), {})

    @property
    def text(self) -> str:
        """The file, with a hash by which a torn or edited one is told."""
        record = {"id": self.id, "uses": dict(self.uses)}
        return json.dumps(record | {"sha256": json_sha256(record)})


def read_spending(directory: RunDirectory) -> Spending:
    """Return what rounds may have spent; a missing or altered file is refused."""
    where = directory.path / SPENDING
    try:
        record = json.loads(where.read_text(encoding="utf-8"))
        found = Spending(record["id"], {str(name): int(uses) for name, uses in record["uses"].items()})
        if record["sha256"] != json_sha256({"id": found.id, "uses": dict(found.uses)}):
            raise ValueError("its hash does not fit")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = "missing" if isinstance(error, FileNotFoundError) else f"not what fedloom wrote ({error})"
        raise RunError(
            f"{where}: {what}; it tells what was spent of the clients' privacy, and without it no epsilon can be "
            "stated: restore the file, or start a new run."
        ) from error
    return found


def has_spent(directory: RunDirectory) -> bool:
    """Return whether a round of a private run was begun, after which something may have been let out."""
    return (directory.path / SPENDING).is_file() and bool(read_spending(directory).uses)


def write_spending(directory: RunDirectory, uses: Mapping[str, int]) -> None:
    """Write down what the coming round may spend, before anything is let out; a count never falls."""
    before = read_spending(directory)
    counted = {name: max(n, before.uses.get(name, 0)) for name, n in uses.items()}
    write_atomic(directory.path / SPENDING, replace(before, uses={**before.uses, **counted}).text)


def is_private(table: Mapping[str, Any]) -> bool:
    """Return whether a resolved run file asks for privacy."""
    return table.get("privacy", {}).get("name", "none") != "none"


def account_line(
    mechanism: Mechanism,
    client: str,
    budget: PrivacyBudget,
    uses: int,
    *,
    round: int,
    before: Sequence[Earlier],
    broken: str,
) -> dict[str, Any]:
    """Return the line of the ledger that says what was spent of a client's privacy, or of all clients' under "".

    `before` is what the run's start has spent of it. An epsilon that nothing bounds is null; then `not_private` says
    why: `broken`, or that the start protects something else.
    """
    spent = mechanism.spent(budget, uses, before)
    unbounded = bool(broken) or any(map(math.isinf, spent.values()))
    line: dict[str, Any] = {
        "round": round,
        "client": client,
        "what": f"privacy spent on {'this client' if client else 'all clients'}",
        "sampling_rate": budget.rate,
        "noise_multiplier": budget.noise_multiplier,
        "settings": dict(vars(mechanism)),
        "delta": budget.delta,
        "uses": uses,
        "uses_allowed": budget.max_uses,
        "epsilon": dict.fromkeys(spent) if unbounded else spent,
    }
    if budget.of_sum:
        line["of_sum"] = dict(vars(budget.of_sum))
    if before or broken:
        own = mechanism.spent(budget, uses)
        line |= {"before": [dict(vars(one)) for one in before], "epsilon_of_this_run": own}
    if unbounded:
        line["not_private"] = broken or "its start protects something else than this run does"
    return line


def privacy_card(mechanism: str, unit: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what tables and model cards read: mechanism and unit, and the largest epsilon of any client."""
    worst = max(lines, key=largest_epsilon)
    card = {
        "mechanism": mechanism,
        "settings": dict(worst["settings"]),
        "unit": unit,
        "epsilon": {
            name: None if math.isinf(value) else value for name, value in _largest([*map(epsilons, lines)]).items()
        },
        "delta": max(line["delta"] for line in lines),
        "smallest_noise_multiplier": min(line["noise_multiplier"] for line in lines),
        "uses": max(line["uses"] for line in lines),
        "guards": len(lines),
        ACCOUNTS: json_sha256({"accounts": lines}),
    }
    own = [line["epsilon_of_this_run"] for line in lines if "epsilon_of_this_run" in line]
    card |= {"epsilon_of_this_run": _largest(own)} if own else {}
    return card | ({"not_private": worst["not_private"]} if "not_private" in worst else {})


def _largest(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the largest epsilon by each accountant."""
    return {name: max(one[name] for one in found) for name in found[0]}


def epsilons(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the epsilons of an account or a card, infinite where nothing bounds them."""
    return {name: math.inf if value is None else float(value) for name, value in record["epsilon"].items()}


def largest_epsilon(record: Mapping[str, Any]) -> float:
    """Return the epsilon that counts, which is the first one."""
    return next(iter(epsilons(record).values()))


def spent_text(card: Mapping[str, Any]) -> str:
    """Return what a card states, in words: epsilon by both accountants, or why none can be stated."""

    def told(found: Mapping[str, float]) -> str:
        return "epsilon " + ", ".join(f"{value:.3f} ({name})" for name, value in found.items())

    own = told(card["epsilon_of_this_run"]) if "epsilon_of_this_run" in card else ""
    if "not_private" in card:
        return f"NOT PRIVATE: {card['not_private']} (epsilon infinite{f'; of this run alone {own}' if own else ''})"
    return told(epsilons(card)) + (f" with what its start had spent (of this run alone {own})" if own else "")


def stated_privacy(directory: RunDirectory, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of a run directory with the resolved run file `table`; empty where nothing is private.

    Of an unfinished run it is that of all rounds that were begun. Raises RunError for records that are missing,
    unreadable or contradict each other.
    """
    where = directory.path / _CARD
    if not is_private(table):
        if where.exists():
            raise RunError(f"{where}: run.toml says that the run is not private; one of the two is not this run's.")
        return {}
    uses = read_spending(directory).uses
    name, unit = table["privacy"]["name"], str(table["privacy"].get("unit", ""))
    try:
        blocks = _accounts(directory)
        if not blocks and not uses and (not directory.complete or (directory.path / DEPLOYMENT).is_file()):
            return {}  # stopped before anything was measured, or clients elsewhere keep their own accounts
        cards = [privacy_card(name, unit, block) for block in blocks[-2:]]
        card = json.loads(directory.read(_CARD))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{where}: is not what fedloom wrote ({error}); the run directory is damaged.") from error
    if card not in (cards[-1:] if directory.complete else cards[-2:]):  # killed between the two, the card is one behind
        raise RunError(
            f"{where}: contradicts the accounts in ledger.jsonl; restore both, or take the run as not private."
        )
    if all(line["uses"] == uses.get(line["client"], 0) for line in blocks[-1]):
        return cards[-1]
    if directory.complete:
        raise RunError(f"{where}: contradicts {SPENDING}, which counts other uses; restore both.")
    return privacy_card(name, unit, [_later(table, line, uses) for line in blocks[-1]])


def restate(directory: RunDirectory, mechanism: Mechanism) -> None:
    """Write the card of the last accounts in the ledger, after it was cut back for a run to go on."""
    for block in _accounts(directory)[-1:]:
        write_card(directory, privacy_card(mechanism.name, mechanism.covers().name, block))


def write_card(directory: RunDirectory, card: Mapping[str, Any]) -> None:
    """Write what is stated of a run's privacy."""
    write_atomic(directory.path / _CARD, json.dumps(card, indent=1))


def _accounts(directory: RunDirectory) -> list[list[dict[str, Any]]]:
    """Return the accounts in the ledger, those of each round together."""
    found: dict[int, list[dict[str, Any]]] = {}
    for line in directory.lines("ledger.jsonl"):
        if "epsilon" in line:
            found.setdefault(line["round"], []).append(line)
    return list(found.values())


def _later(table: Mapping[str, Any], line: Mapping[str, Any], uses: Mapping[str, int]) -> dict[str, Any]:
    """Return an account as it stands after all rounds that were begun."""
    settings = {key: value for key, value in table["privacy"].items() if key != "name"}
    mechanism = lookup(Mechanism, table["privacy"]["name"])(**settings)
    client = line["client"]
    of_sum = WholeSum(**line["of_sum"]) if "of_sum" in line else None
    budget = PrivacyBudget(line["sampling_rate"], line["noise_multiplier"], line["delta"], line["uses_allowed"], of_sum)
    before = [Earlier(**one) for one in line.get("before", ())]
    now = max(line["uses"], uses.get(client, 0))
    broken = line.get("not_private", "")
    return account_line(mechanism, client, budget, now, round=line["round"], before=before, broken=broken)
