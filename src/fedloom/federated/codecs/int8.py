"""Rows as 8-bit multiples of a scale per block of 256 numbers (Dettmers et al., 2022, https://arxiv.org/abs/2110.02861).

Deviations: linear levels instead of dynamic ones, and error feedback (see `top_k`) instead of none.
"""

import torch
from torch import Tensor

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Codec
from fedloom.federated.codecs._blocks import dequantised, n_blocks, quantised, read_quanta
from fedloom.federated.codecs._packets import as_bytes, check_packet, check_row

__all__ = ["Int8"]

_BLOCK, _LEVELS = 256, 127


@plugin("int8")
class Int8(Codec):
    """4 ceil(P / 256) + P bytes; a number loses at most 1/254 of the largest magnitude of its block."""

    error_feedback: bool = True
    """Whether the client adds what was lost to its next row."""

    def encode(self, row_P: Tensor) -> Tensor:
        """Return the scales, then the multiples."""
        check_row(row_P, "int8")
        quantum_M, multiple_P = quantised(row_P, block=_BLOCK, levels=_LEVELS)
        return torch.cat([as_bytes(quantum_M), as_bytes(multiple_P)])

    def decode(self, packet: Tensor, size: int) -> Tensor:
        """Return the multiples of the scales; DataError for a wrong length and scales that are none."""
        head = 4 * n_blocks(size, _BLOCK)
        check_packet(packet, "int8", size=size, n_bytes=head + size)
        return dequantised(read_quanta(packet[:head], "int8"), packet[head:].view(torch.int8), block=_BLOCK)

    def feedback(self) -> bool:
        """Return the field `error_feedback`."""
        return self.error_feedback
