"""What passes between a client and the server in a step, and how many bytes it was.

    FWD    client -> server    states behind the input part, and how long each sequence is
    BODY   server -> client    states behind the middle
    GRAD   client -> server    gradient of the client's summed loss by these, and over how many tokens it was summed
    BACK   server -> client    gradient by the states that came with FWD

and in a session, in which a client has an answer written (4.8):

    OPEN      client -> server    that so many tokens at most will be read; the server says the same
    READ      client -> server    states of some tokens behind the input part
    TOLD      server -> client    states behind the middle, or:
    GONE      server -> client    that it does not have the session (any more)
    ROLLBACK  client -> server    to forget what was read behind a place; the server says the same
    CLOSE     client -> server    to forget all; the server says the same

Of 4.4 of the specification; tokens, targets, logits and losses are in none of them. Masks and positions follow from the
lengths. Of a model that reads prompts in both directions FWD says besides how long each prompt is: its mask needs that
in every block. No other model's messages tell where an answer begins.

Deviations: the gradients are of the summed loss and not of the step's objective, which divides by the tokens of all
clients: that division takes place where gradients are used, over those that came. So no total has to be known before
(PLAN), none has to be corrected where a client is lost (4.3), and small numbers keep clear of the end of float16.
COMMIT is for links that break, and there is none in one process.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from fedloom.contracts.messages import Traffic

__all__ = ["UPWARDS", "Kind", "Message", "Tally"]

Kind = Literal["FWD", "BODY", "GRAD", "BACK", "OPEN", "READ", "TOLD", "GONE", "ROLLBACK", "CLOSE"]
UPWARDS = frozenset[Kind]({"FWD", "GRAD", "OPEN", "READ", "ROLLBACK", "CLOSE"})
"""The kinds that leave a client."""

_LENGTH_BYTES, _COUNT_BYTES = 4, 8


@dataclass(frozen=True)
class Message:
    """One message of one client's micro-batch."""

    kind: Kind
    client: str
    step: int
    """In a session, which of its messages this is."""
    micro: int
    """In a session, how many tokens lie before these."""
    packet: Tensor
    """The rows of the client's real tokens as the wire makes them, uint8."""
    lengths: tuple[int, ...]
    """Tokens of each sequence; they travel with FWD alone, both sides remember them."""
    weight: float = 0.0
    """Supervised tokens of the micro-batch, with GRAD."""
    prompts: tuple[int, ...] = ()
    """Tokens of each sequence's prompt, with FWD, where a model reads prompts in both directions and the server has to
    know their ends; empty for causal models."""
    session: str = ""
    """The name of the session to which it belongs."""

    @property
    def n_tokens(self) -> int:
        """Real tokens."""
        return sum(self.lengths)

    @property
    def n_bytes(self) -> int:
        """Bytes of the message without its header."""
        beside = {"FWD": _LENGTH_BYTES * (len(self.lengths) + len(self.prompts)), "GRAD": _COUNT_BYTES}
        return self.packet.numel() + beside.get(self.kind, 0)

    @property
    def where(self) -> str:
        """What refusals begin with."""
        return f"client '{self.client}', step {self.step}, {self.kind}"


@dataclass
class Tally:
    """The bytes of all messages so far, by client and kind, and the tokens that they were for."""

    n_bytes: Counter[tuple[str, Kind]] = field(default_factory=Counter[tuple[str, Kind]])
    n_tokens: Counter[tuple[str, Kind]] = field(default_factory=Counter[tuple[str, Kind]])
    with_prompts: set[Kind] = field(default_factory=set[Kind])
    """The kinds that told how long prompts are."""

    def add(self, messages: Iterable[Message]) -> None:
        """Count messages."""
        for one in messages:
            self.n_bytes[one.client, one.kind] += one.n_bytes
            self.n_tokens[one.client, one.kind] += one.n_tokens
            if one.prompts:
                self.with_prompts.add(one.kind)

    def of(self, client: str) -> Mapping[str, Traffic]:
        """Return a client's messages by kind, which says so where it told how long prompts are."""
        said = {kind: f"{kind} (with the lengths of prompts)" for kind in self.with_prompts}
        return {
            said.get(kind, kind): Traffic(n_bytes, self.n_tokens[client, kind], upwards=kind in UPWARDS)
            for (whose, kind), n_bytes in self.n_bytes.items()
            if whose == client
        }
