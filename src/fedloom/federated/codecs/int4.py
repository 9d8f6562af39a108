"""Rows as 4-bit multiples of a scale per block of 64 numbers, two to a byte.

As `int8`, with 7 levels on either side of zero; blocks are shorter, because with so few levels one large number costs
its neighbours more (the block of QLoRA, Dettmers et al., 2023, https://arxiv.org/abs/2305.14314, section 3).

Deviations: linear levels instead of normal quantiles, because an update with error feedback must have no bias; scales
are not quantised again.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Codec
from fedloom.federated.codecs._blocks import dequantised, n_blocks, quantised, read_quanta
from fedloom.federated.codecs._packets import as_bytes, check_packet, check_row

__all__ = ["Int4"]

_BLOCK, _LEVELS = 64, 7


@plugin("int4")
class Int4(Codec):
    """4 ceil(P / 64) + ceil(P / 2) bytes; a number loses at most 1/14 of the largest magnitude of its block."""

    error_feedback: bool = True
    """Whether the client adds what was lost to its next row."""

    def encode(self, row_P: Tensor) -> Tensor:
        """Return the scales, then the multiples: of two neighbours, the first in the lower half of a byte."""
        check_row(row_P, "int4")
        quantum_M, multiple_P = quantised(row_P, block=_BLOCK, levels=_LEVELS)
        pairs = functional.pad(multiple_P, (0, len(row_P) % 2)).view(torch.uint8).view(-1, 2)
        return torch.cat([as_bytes(quantum_M), (pairs[:, 0] & 15) | (pairs[:, 1] << 4)])

    def decode(self, packet: Tensor, size: int) -> Tensor:
        """Return the multiples of the scales; DataError for a wrong length and scales that are none."""
        head = 4 * n_blocks(size, _BLOCK)
        check_packet(packet, "int4", size=size, n_bytes=head + (size + 1) // 2)
        pairs = packet[head:].view(torch.int8)
        # An arithmetic shift carries the sign of a half byte into the whole one.
        multiple_P = torch.stack([(pairs << 4) >> 4, pairs >> 4], dim=1).view(-1)[:size]
        return dequantised(read_quanta(packet[:head], "int4"), multiple_P, block=_BLOCK)

    def feedback(self) -> bool:
        """Return the field `error_feedback`."""
        return self.error_feedback
