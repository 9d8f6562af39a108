"""A client's part in secure sums, at its node: one party for each attempt, whose secrets never touch the disk.

A node that is started anew has lost them, and is lost for that attempt; the next one has keys of its own. Whose keys
are whose is told by the certificates of the nodes, which the federation's authority has signed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedloom.base.errors import ConfigError, DataError
from fedloom.contracts.federated import Work
from fedloom.federated.aggregators.secure_sum import SecureSum
from fedloom.network.journal import Journal
from fedloom.network.keys import check, verify_bytes
from fedloom.network.summing import message, terms_of
from fedloom.secure_sum.agreement import Verify
from fedloom.secure_sum.messages import Box, Confirmations, Roster, Survivors
from fedloom.secure_sum.numbers import row_of
from fedloom.secure_sum.party import Party

__all__ = ["Partaking", "partakers", "verifier"]


def partakers(body: bytes) -> tuple[list[str], dict[str, str]]:
    """Return who takes part in a sum and the certificates of their nodes, as a server says; DataError for all else."""
    told: Any = message(body)
    try:
        clients, certificates = list(told["clients"]), dict(told["certificates"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("secure sum: found no clients and certificates.") from error
    if not all(isinstance(one, str) for one in (*clients, *certificates, *certificates.values())):
        raise DataError("secure sum: found clients and certificates that are no texts.")
    return clients, certificates


def verifier(certificates: Mapping[str, str], nodes: Mapping[str, str], authority: str) -> Verify:
    """Return what tells whether a signature is a client's: its node's certificate, which the authority has signed.

    `nodes` says which node holds a client's data, as the approved manifest does.
    """
    known: dict[str, str] = {}

    def verify(client: str, said: bytes, signature: bytes) -> bool:
        node = nodes.get(client, "")
        if node not in known:
            certificate = certificates.get(node, "")
            if not certificate or check(certificate, authority, "node").name != node:
                return False
            known[node] = certificate
        return verify_bytes(known[node], said, signature)

    return verify


class Partaking:
    """What one client does in the sums of a run."""

    def __init__(self, client: str, work: Work, run: str, *, sign: Callable[[bytes], bytes], journal: Journal) -> None:
        self._journal = journal
        rule = work.plan.aggregator
        if not isinstance(rule, SecureSum):
            raise ConfigError(f"aggregator: '{rule.name}' makes no secure sums.")
        self._rule, self._client, self._plan, self._run = rule, client, work.plan, run
        self._sign = sign
        self._party: Party | None = None
        self._attempt: tuple[int, int] = (-1, -1)
        self._survivors: tuple[str, ...] = ()

    def advertise(
        self, round: int, attempt: int, clients: Sequence[str], verify: Verify, *, size: int, least: int
    ) -> bytes:
        """Begin an attempt at the sum of a round with these clients, and return this client's keys.

        Refused are attempts that were begun before, and rounds of fewer clients than the policy allows, `least`.
        """
        if (round, attempt) <= self._attempt:
            raise DataError(f"secure sum, round {round}: attempt {attempt} was begun before; keys are used once.")
        names = dict.fromkeys(clients)
        if len(names) < least or not set(names) <= set(self._plan.clients) or self._client not in names:
            raise ConfigError(
                f"min_clients_per_round: found a sum of {len(names)} clients, allowed are {least} or more of "
                "this run, this one among them."
            )
        terms = terms_of(self._plan, self._rule, self._run, round, attempt, names, size)
        if terms.min_clients < least:
            raise ConfigError(
                f"min_clients_per_round: found a sum of {terms.min_clients} clients at least, allowed are {least}."
            )
        self._attempt = round, attempt
        self._party = Party(terms, self._client, sign=self._sign, verify=verify)
        return _body(self._party.advertise().to_table())

    def answer(self, round: int, attempt: int, phase: str, body: bytes, row: Callable[[], bytes]) -> bytes:
        """Return this client's message for a phase; `row` gives its whole numbers [S], which leave under masks.

        The round is that of the job whose row it is: what was opened is remembered by it.
        """
        party = self._party
        if party is None or (round, attempt) != self._attempt:
            raise DataError("secure sum: a message of an attempt that this node is no part of.")
        table, terms = message(body), party.terms
        match phase:
            case "share":
                return _body(party.share(Roster.from_table(table, terms)).to_table())
            case "mask":
                return party.mask(Box.from_table(table, terms), row_of(row())).to_bytes()
            case "confirm":
                survivors = Survivors.from_table(table, terms)
                before = self._journal.summed_over(self._client, terms.round)
                if before is not None and before != list(survivors.names):
                    raise ConfigError(
                        f"secure sum, round {terms.round}: a sum with the same row was opened over other clients; two "
                        "that differ would tell the rows of those between."
                    )
                self._survivors = survivors.names
                return _body(party.confirm(survivors).to_table())
            case "unmask":
                self._journal.keep_opened(self._client, terms.round, self._survivors)
                return _body(party.unmask(Confirmations.from_table(table, terms)).to_table())
            case _:
                raise DataError("secure sum: a message of no phase.")


def _body(table: Any) -> bytes:
    return json.dumps(table, separators=(",", ":")).encode()
