"""A secure sum at the server, message by message: which phase it is in, who is waited for, what everybody is sent next.

The collector (`secure_sum/collector.py`) knows the protocol. Here its messages become JSON, and a phase ends with those
who have answered: whoever is lost then is left out, as far as the threshold allows.
"""

import json
from collections.abc import Mapping
from typing import Any

from fedloom.base.errors import DataError
from fedloom.contracts.federated import Plan
from fedloom.federated.aggregators.secure_sum import SecureSum
from fedloom.secure_sum.agreement import Verify
from fedloom.secure_sum.collector import Collector
from fedloom.secure_sum.messages import Advert, Confirmation, MaskedRow, Opened, Shares
from fedloom.secure_sum.numbers import row_bytes
from fedloom.secure_sum.party import PHASES, following
from fedloom.secure_sum.terms import SecureSumError, Terms

__all__ = ["Summing", "message", "terms_of"]


def terms_of(
    plan: Plan, rule: SecureSum, run: str, round: int, attempt: int, clients: Mapping[str, Any], size: int
) -> Terms:
    """Return what the clients of a round agree on, from what all of them know; an attempt has keys of its own.

    SecureSumError where so few are there that the noise that they add would be too little.
    """
    names = tuple(sorted(clients))
    least = max(2, min(plan.min_clients or len(names), len(names)))
    if plan.mechanism.covers().in_sum:
        least = plan.min_clients or plan.clients_per_round
        if len(names) < least:
            raise SecureSumError(
                f"secure sum, round {round}: found {len(names)} clients, allowed are {least} or more: the noise of "
                "fewer is too little; wait for the others."
            )
    found = rule.size(len(names))
    return Terms(
        run=f"{run}/{attempt}",
        round=round,
        clients=names,
        size=rule.numbers.size(size),
        degree=found.degree,
        threshold=found.threshold,
        min_clients=least,
        encoding=rule.numbers.told(),
    )


def message(body: bytes) -> Any:
    """Return what a message's body says; DataError where it is no JSON."""
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"secure sum: a message that is no JSON ({error}).") from error


class Summing:
    """One attempt at one sum."""

    def __init__(self, terms: Terms, verify: Verify) -> None:
        self.terms = terms
        self.phase = PHASES[0]
        self.waiting = set(terms.clients)
        """Of whom this phase's message is still to come."""
        self._collector = Collector(terms, verify)

    def take(self, client: str, phase: str, body: bytes) -> None:
        """Take in a client's message; refused are those of another phase, of strangers, and all that is none."""
        if phase != self.phase or client not in self.waiting:
            raise DataError(f"secure sum: found a message of phase '{phase[:20]}', waited for is '{self.phase}'.")
        if phase == "mask":
            self._collector.take_row(MaskedRow.from_bytes(client, body, self.terms))
        else:
            self._take(client, phase, message(body))
        self.waiting.discard(client)

    def _take(self, client: str, phase: str, table: Any) -> None:
        kinds = {"advertise": Advert, "share": Shares, "confirm": Confirmation, "unmask": Opened}
        found = kinds[phase].from_table(table, self.terms)
        if found.sender != client:
            raise DataError(f"secure sum: found a message of '{found.sender}', sent by '{client}'.")
        match found:
            case Advert():
                self._collector.take_advert(found)
            case Shares():
                self._collector.take_shares(found)
            case Confirmation():
                self._collector.take_confirmation(found)
            case Opened():
                self._collector.take_opened(found)

    def closed(self) -> dict[str, bytes]:
        """End the phase with those who have answered, and return what each of those is sent for the next one."""
        match self.phase:
            case "advertise":
                roster = self._collector.roster()
                sent = dict.fromkeys(roster.names, _body(roster.to_table()))
            case "share":
                sent = {name: _body(box.to_table()) for name, box in self._collector.boxes().items()}
            case "mask":
                survivors = self._collector.survivors()
                sent = dict.fromkeys(survivors.names, _body(survivors.to_table()))
                self.survivors = survivors.names
            case _:
                sent = {name: _body(told.to_table()) for name, told in self._collector.confirmations().items()}
        self.phase = following(self.phase)
        self.waiting = set(sent)
        return sent

    def total(self) -> bytes:
        """End the sum and return it: 4 S bytes, little-endian."""
        return row_bytes(self._collector.total())


def _body(table: Any) -> bytes:
    return json.dumps(table, separators=(",", ":")).encode()
