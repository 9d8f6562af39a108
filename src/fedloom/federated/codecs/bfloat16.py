"""Rows rounded to bfloat16: 2 bytes a number, a relative error of at most 2^-8."""

import torch
from torch import Tensor

from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Codec
from fedloom.federated.codecs._packets import as_bytes, as_numbers, check_packet, check_row

__all__ = ["Bfloat16"]


@plugin("bfloat16")
class Bfloat16(Codec):
    """2 P bytes; each number is rounded to nearest, so that it loses at most 2^-8 of itself."""

    error_feedback: bool = True
    """Whether the client adds what was lost to its next row."""

    def encode(self, row_P: Tensor) -> Tensor:
        """Return the rounded row; DataError for a number that rounds to infinity."""
        check_row(row_P, "bfloat16")
        rounded_P = row_P.to(torch.bfloat16)
        if float(row_P.abs().max()) > torch.finfo(torch.bfloat16).max and bool(torch.isinf(rounded_P).any()):
            raise DataError("codec 'bfloat16': the row holds numbers beyond 3.39e38: use codec.name = 'float32'.")
        return as_bytes(rounded_P)

    def decode(self, packet: Tensor, size: int) -> Tensor:
        """Return the rounded row; a packet of another length raises DataError."""
        check_packet(packet, "bfloat16", size=size, n_bytes=2 * size)
        return as_numbers(packet, torch.bfloat16).float()

    def feedback(self) -> bool:
        """Return the field `error_feedback`."""
        return self.error_feedback
