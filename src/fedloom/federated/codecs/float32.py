"""Rows as they are: 4 bytes a number."""

from typing import ClassVar

import torch
from torch import Tensor

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Codec
from fedloom.federated.codecs._packets import as_bytes, as_numbers, check_packet, check_row

__all__ = ["Float32"]


@plugin("float32")
class Float32(Codec):
    """4 P bytes, exact; packet and row share their memory."""

    exact: ClassVar[bool] = True

    def encode(self, row_P: Tensor) -> Tensor:
        """Return the row's own bytes."""
        check_row(row_P, "float32")
        return as_bytes(row_P)

    def decode(self, packet: Tensor, size: int) -> Tensor:
        """Return the packet's bytes as the row; a packet of another length raises DataError."""
        check_packet(packet, "float32", size=size, n_bytes=4 * size)
        return as_numbers(packet, torch.float32)
