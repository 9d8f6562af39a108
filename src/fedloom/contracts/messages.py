"""What server and clients know of each other: what is sent down, what comes back, and what protects it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedloom.base.mean import Mean
from fedloom.base.tree import Layout, Slots, Tree

__all__ = ["Earlier", "Job", "Local", "PrivacyBudget", "Report", "Traffic", "WholeSum"]


@dataclass(frozen=True)
class Local:
    """What a client knows while it trains."""

    anchor: Tree
    """The shared parameters at the start of the round."""
    shared: Slots = field(default_factory=dict[str, Tree])
    """The server's slots, the same for all clients."""
    memory: Slots = field(default_factory=dict[str, Tree])
    """This client's own slots; they never leave it."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one kind of message of a client came to in a round, beside its row."""

    n_bytes: int
    n_tokens: int
    """Tokens, or whatever the task counts, that it was about."""
    upwards: bool
    """Whether it left the client; else it went there."""


@dataclass(frozen=True)
class Job:
    """All that the server sends one client for one round; its trees are whole rows under the name ""."""

    client: str
    round: int
    lr: float
    local: Local
    spent: int = 0
    """Uses of the mechanism on this client's data so far."""
    middle: Slots = field(default_factory=dict[str, Tree])
    """What the server trains itself while clients train, of a split model; it goes to no client and is only carried."""


@dataclass(frozen=True)
class Report:
    """All that a client sends back; `memory` stays with the client and is only carried here in simulation.

    Where a client's examples are protected, weight, counts and loss say nothing of them: 1, 0, the expected number
    of samples, and no loss; where the client is, samples and steps are 0 too.
    """

    client: str
    packet: Tensor
    """The row as its codec made it, or as whole numbers for a sum that alone is seen, uint8."""
    layout: Layout
    weight: float
    n_examples: int
    """Distinct examples of the client."""
    samples_seen: int
    """Examples trained on this round, repetitions counted."""
    loss: Mean
    memory: Slots
    steps: int
    """Optimiser steps taken."""
    sum_of: int = 0
    """Of how many clients' rows the packet is the sum, which alone a server sees; their own reports have no packet."""
    refused: str = ""
    """Why a carrier took nothing of it: the client then counts as absent, and the ledger says so."""
    own_seen: int | None = None
    """Of the examples trained on those that were not generated, of an unprotected client that has generated ones."""
    middle: Slots = field(default_factory=dict[str, Tree])
    """What became of a job's `middle`: it comes with the last report of a round, and never left the server."""
    traffic: Mapping[str, Traffic] = field(default_factory=dict[str, Traffic])
    """What client and server said to each other while the client trained, by kind."""


@dataclass(frozen=True)
class WholeSum:
    """A sum of rows as whole numbers, to which each client adds noise: what the noise's accountant has to know."""

    numbers: int
    """Of a row."""
    clients: int
    """At most in a round."""
    least: int
    """Clients in every sum that is opened whose noise counts: fewest rows less those that may collude."""
    bits: int
    clip: float
    norm: float
    """As in `secure_sum.numbers.Numbers`."""


@dataclass(frozen=True)
class PrivacyBudget:
    """What protects one owner's data for the whole run, as an accountant needs it."""

    rate: float
    """Probability with which a record takes part in one use of the mechanism (Poisson sampling)."""
    noise_multiplier: float
    """Standard deviation of the noise on the sum, over the largest norm of one contribution."""
    delta: float
    max_uses: int
    """Uses after which the budget would be passed by one more."""
    of_sum: WholeSum | None = None
    """The sum of whole numbers that the noise lies on; None where it lies on numbers as they are."""


@dataclass(frozen=True)
class Earlier:
    """Uses of a mechanism on the same data before this run began, of which the run's start is made."""

    unit: str
    rate: float
    noise_multiplier: float
    uses: int
