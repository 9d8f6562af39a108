"""Ledger lines: all that left each client, in a round and before the first one."""

from collections.abc import Iterator
from typing import Any

from fedloom.contracts.federated import Plan
from fedloom.federated.rounds import ClientRecord, RoundRecord, State
from fedloom.runs.prepared import Prepared
from fedloom.runs.refining import Told
from fedloom.runs.stage import Stage

__all__ = ["division_lines", "round_lines", "server_lines"]


def division_lines(ready: Prepared) -> list[dict[str, Any]]:
    """Return what the partition card tells of each client."""
    what = "number, lengths and tags of its examples (partition.json)"
    lines: list[dict[str, Any]] = [{"round": 0, "client": client, "what": what} for client in ready.shards]
    for one in ready.division.card.get("prepared", ()):
        head = {"round": 0, "client": one["client"]}
        lines.append(head | {"what": f"prepare {one['stage']}: counts (partition.json)", "bytes": 0})
        lines += [head | {"what": f"prepare {one['stage']}: {what}", "bytes": n} for what, n in one["sent"].items()]
        got = one.get("received", {}).items()
        lines += [head | {"what": f"server to client, {what}", "bytes": 0, "download_bytes": n} for what, n in got]
    return lines


def round_lines(record: RoundRecord, stage: Stage, state: State) -> Iterator[dict[str, Any]]:
    """Yield all that left each client in the round, and what has been spent of its privacy: a round of many is long."""
    missing = (
        {"round": record.round, "client": client, "what": _missing(record, client), "bytes": 0, "leg": stage.name}
        for client in record.absent
    )
    if stage.plan.mechanism.covers().private:
        yield from (_private_line(one, record, stage.plan, state) for one in record.clients)
        yield from missing
    else:
        yield from missing
        for one in record.clients:
            yield from _messages(one, record, stage.name)
            yield _plain_line(one, record, stage.name)


def _messages(client: ClientRecord, record: RoundRecord, stage: str) -> Iterator[dict[str, Any]]:
    """Yield what a client and the server said to each other while it trained, a line for each kind of message."""
    for kind, one in client.traffic.items():
        head = {"round": record.round, "client": client.client, "leg": stage, "tokens": one.n_tokens}
        if one.upwards:
            yield head | {"what": f"{kind} messages", "bytes": one.n_bytes}
        else:
            yield head | {"what": f"server to client, {kind} messages", "bytes": 0, "download_bytes": one.n_bytes}


def _plain_line(client: ClientRecord, record: RoundRecord, stage: str) -> dict[str, Any]:
    return {
        "round": record.round,
        "client": client.client,
        "what": "row (" + ", ".join(client.slots) + "), weight, training loss",
        "bytes": client.upload_bytes,
        "download_bytes": record.download_bytes,
        "weight": client.weight,
        "train_loss": client.loss.value,
        "examples": client.n_examples,
        "samples_seen": client.samples_seen,
        "epochs": client.samples_seen / client.n_examples,
        **({} if client.own_seen is None else {"own_seen": client.own_seen}),
        "leg": stage,
    }


def _missing(record: RoundRecord, client: str) -> str:
    return f"nothing: refused, {why}" if (why := record.refused.get(client)) else "nothing: it did not report"


def _private_line(client: ClientRecord, record: RoundRecord, plan: Plan, state: State) -> dict[str, Any]:
    """Return a ledger line that says of a protected client nothing but what the mechanism lets out."""
    name = plan.budget_of(client.client)
    line: dict[str, Any] = {
        "round": record.round,
        "client": client.client,
        "what": "row ("
        + ", ".join(client.slots)
        + f") under {plan.mechanism.name}, unit {plan.mechanism.covers().name}",
        "bytes": client.upload_bytes,
        "download_bytes": record.download_bytes,
        "weight": client.weight,
    }
    # A client elsewhere keeps its own account: its sampling rate alone would tell how many examples it has.
    budget = plan.budgets.get(name)
    account = (
        {
            "sampling_rate": budget.rate,
            "noise_multiplier": budget.noise_multiplier,
            "delta": budget.delta,
            "uses": state.spent.get(name, 0),
            "uses_allowed": budget.max_uses,
        }
        if budget
        else {}
    )
    return line | account | {"leg": ""}


def server_lines(round: int, stage: Stage, told: Told) -> list[dict[str, Any]]:
    """Return what refining let out of the clients, nothing, and of the server: parameters back to them, questions."""
    head = {"round": round, "client": "", "leg": stage.name}
    lines: list[dict[str, Any]] = []
    for name, done in told:
        back = sum(tensor.nbytes for tensor in done.params.values())
        what = f"nothing: the server refines ({name})"
        lines.append(head | {"what": what, "bytes": 0, "download_bytes": back * stage.plan.clients_per_round})
        lines += [head | {"what": f"server, {name}: {what}", "bytes": n} for what, n in done.sent.items()]
    return lines
