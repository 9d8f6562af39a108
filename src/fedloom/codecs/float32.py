"""The row as it is: four bytes a number."""

from typing import ClassVar

import torch
from torch import Tensor

from fedloom.contracts import Codec
from fedloom.errors import DataError
from fedloom.plugin import plugin

__all__ = ["Float32"]


@plugin("float32")
class Float32(Codec):
    """Bytes of the row itself, without a copy."""

    exact: ClassVar[bool] = True

    def encode(self, row_P: Tensor) -> Tensor:
        """Return the row's own bytes."""
        return row_P.contiguous().view(torch.uint8)

    def decode(self, packet: Tensor, size: int) -> Tensor:
        """Return the row; raises DataError if the packet has another size."""
        if packet.dtype != torch.uint8 or packet.shape != (4 * size,):
            raise DataError(f"a float32 packet of {packet.numel()} bytes: {size} numbers take {4 * size}.")
        return packet.view(torch.float32)
