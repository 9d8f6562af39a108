"""What all parties of one secure sum agree on before it begins, and the refusals of the protocol."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from fedloom.base.errors import ConfigError, FedloomError

__all__ = ["SecureSumError", "Terms", "packed"]


class SecureSumError(FedloomError, RuntimeError):
    """A message of a secure sum is altered, foreign, out of turn or asks for too much; or too few clients are left."""


def packed(*parts: bytes) -> bytes:
    """Return the parts in a row, each after its length in 4 bytes, so that no two lists give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True)
class Terms:
    """One sum in one round of one run. Every signature and every derived key is bound to the digest of all of it."""

    run: str
    round: int
    clients: tuple[str, ...]
    """Who may take part, in the order of their names."""
    size: int
    """Numbers in a masked row, S."""
    degree: int
    """Neighbours of a client in the graph of masks: an even number, or all others."""
    threshold: int
    """Shares that give back a secret; fewer give nothing."""
    min_clients: int
    """Fewest rows in a sum: a party opens nothing for a sum over fewer."""
    encoding: str = ""
    """How the numbers of a row are made, in words that all parties must have equal."""

    def __post_init__(self) -> None:
        n, where = len(self.clients), f"secure sum, round {self.round}"
        if list(self.clients) != sorted(set(self.clients)):
            raise ConfigError(f"{where}: found clients twice or out of order, allowed are sorted names; sort them.")
        if self.round < 0 or self.size < 1:
            raise ConfigError(
                f"{where}: found rows of {self.size} numbers, allowed is round >= 0 and at least 1 number; set both."
            )
        if not 2 <= self.min_clients <= n:
            raise ConfigError(
                f"{where}: found min_clients = {self.min_clients}, allowed is 2 to the {n} clients: a sum over one "
                "row is that row; raise min_clients."
            )
        whole = self.degree == n - 1
        if not whole and not (0 < self.degree < n - 1 and self.degree % 2 == 0):
            raise ConfigError(
                f"{where}: found degree {self.degree}, allowed is {n - 1} or an even number below; take graph.smallest."
            )
        if not 2 <= self.threshold <= self.degree + whole:
            raise ConfigError(
                f"{where}: found threshold {self.threshold}, allowed is 2 to {self.degree + whole}; "
                "take graph.smallest."
            )

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that stand for all fields."""
        head = (self.run, self.round, self.size, self.degree, self.threshold, self.min_clients, self.encoding)
        return hashlib.sha256(packed(*(str(part).encode() for part in (*head, *self.clients)))).digest()

    def signed(self, kind: str, *parts: bytes) -> bytes:
        """Return the bytes that a signature under a message of that kind covers."""
        return packed(b"fedloom secure sum 1", kind.encode(), self.digest, *parts)
