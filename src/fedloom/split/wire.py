"""How states and their gradients travel: real tokens alone, each a row of D numbers, without padding or header.

    float32    4 D bytes a token, exact
    float16    2 D, 11 bits each
    bfloat16   2 D, 8 bits each, the range of float32
    int8       D + 2: a token's numbers as multiples of its largest magnitude / 127, that quantum as float16

A step carries four such rows a token: the states ahead (FWD, BODY) and their gradients back (GRAD, BACK), in all 4 D q
bytes for q bytes a number.

Shapes: N tokens, D numbers of each. Numbers lie in the byte order of the machine, little-endian on all that torch
supports.

Deviations from 4.4 of the specification: no int4, which it calls experimental. Rounding is to nearest, and nothing is
kept of what is lost: an activation is sent once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedloom.base.errors import DataError, TrainingError
from fedloom.base.rows import is_finite

__all__ = ["WIRES", "Wire", "WireName"]

WireName = Literal["float32", "float16", "bfloat16", "int8"]

_CHUNK = 1 << 16
"""Numbers handled at a time, so that what lies between the steps of int8 stays in the cache."""
_LEVELS = 127


@dataclass(frozen=True)
class Wire:
    """One way for rows to become bytes and back."""

    name: WireName
    bytes_of: Callable[[int], int]
    """Bytes of a token of so many numbers."""
    encoded: Callable[[Tensor], Tensor]
    decoded: Callable[[Tensor, int], Tensor]
    reals: Callable[[Tensor, int], Tensor]
    """The floating-point numbers in a packet: those that may be none."""

    def encode(self, rows_ND: Tensor, where: str) -> Tensor:
        """Return rows of whatever type and device as uint8 numbers on the CPU; TrainingError for NaN and infinity."""
        packet = self.encoded(rows_ND.detach().to("cpu", torch.float32).contiguous())
        if not is_finite(self.reals(packet, rows_ND.shape[1])):
            raise TrainingError(
                f"{where}: NaN, infinity or a number beyond what '{self.name}' carries; lower local.lr, or set "
                "protocol.wire = 'float32'."
            )
        return packet

    def decode(self, packet: Tensor, n_tokens: int, width: int, where: str) -> Tensor:
        """Return the rows [N, D] in float32 of a packet.

        Raises DataError for a packet of another length, TrainingError for NaN and infinity.
        """
        wanted = n_tokens * self.bytes_of(width)
        if packet.dtype != torch.uint8 or tuple(packet.shape) != (wanted,):
            raise DataError(
                f"{where}: found {packet.numel()} bytes, {n_tokens} tokens of {width} numbers take {wanted} in "
                f"'{self.name}'; both sides must have the same wire and model, and the packet must arrive whole."
            )
        if not is_finite(self.reals(packet, width)):
            raise TrainingError(f"{where}: holds NaN or infinity, allowed are finite numbers; it was not used.")
        return self.decoded(packet, width)


def _cast(name: WireName, dtype: torch.dtype) -> Wire:
    def encoded(rows_ND: Tensor) -> Tensor:
        return rows_ND.to(dtype).view(torch.uint8).flatten()

    def decoded(packet: Tensor, width: int) -> Tensor:
        return packet.view(dtype).view(-1, width).float()

    return Wire(name, lambda width: width * dtype.itemsize, encoded, decoded, lambda packet, _: packet.view(dtype))


def _to_int8(rows_ND: Tensor) -> Tensor:
    """Return the quanta [N] as float16, then the multiples [N, D].

    A quantum is rounded up before numbers are divided by it: none is then more than 127 of it, and each loses at most
    half of it however small it is.
    """
    n_tokens, width = rows_ND.shape
    packet = torch.empty(n_tokens * (width + 2), dtype=torch.uint8)
    quantum_N = packet[: 2 * n_tokens].view(torch.float16)
    multiple_ND = packet[2 * n_tokens :].view(torch.int8).view(n_tokens, width)
    at_once = max(1, _CHUNK // width)
    scratch = torch.empty(min(at_once, n_tokens), width)
    for start in range(0, n_tokens, at_once):
        part, into = rows_ND[start : start + at_once], scratch[: min(at_once, n_tokens - start)]
        quantum, largest = quantum_N[start : start + at_once], torch.linalg.vector_norm(part, torch.inf, dim=1)
        quantum.copy_(largest / _LEVELS)
        quantum.view(torch.int16).add_(quantum.float() * _LEVELS < largest)  # the next number of float16
        # 0 / 0 cannot happen: a row whose quantum is zero is divided by infinity.
        divisor = quantum.float().masked_fill_(quantum == 0, torch.inf)[:, None]
        torch.div(part, divisor, out=into).round_()
        multiple_ND[start : start + at_once].copy_(into)
    return packet


def _from_int8(packet: Tensor, width: int) -> Tensor:
    quantum_N = _quanta(packet, width)
    multiple_ND = packet[2 * len(quantum_N) :].view(torch.int8).view(-1, width)
    return multiple_ND.float().mul_(quantum_N.float()[:, None])


def _quanta(packet: Tensor, width: int) -> Tensor:
    return packet[: 2 * (packet.numel() // (width + 2))].view(torch.float16)


WIRES: dict[WireName, Wire] = {
    "float32": _cast("float32", torch.float32),
    "float16": _cast("float16", torch.float16),
    "bfloat16": _cast("bfloat16", torch.bfloat16),
    "int8": Wire("int8", lambda width: width + 2, _to_int8, _from_int8, _quanta),
}
