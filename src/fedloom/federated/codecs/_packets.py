"""What all codecs refuse, and how numbers lie in a packet.

A packet is numbers one after another without a header, in the byte order of the machine, which is little-endian on all
that torch supports: both sides know the codec and the size of the row.
"""

import torch
from torch import Tensor

from fedloom.base.errors import DataError, TrainingError
from fedloom.base.rows import is_finite

__all__ = ["as_bytes", "as_numbers", "check_packet", "check_row", "refuse_damaged"]


def check_row(row_P: Tensor, codec: str) -> None:
    """Refuse what is no row: DataError for another shape or dtype, TrainingError for NaN and infinity."""
    if row_P.ndim != 1 or row_P.dtype != torch.float32 or row_P.device.type != "cpu" or not len(row_P):
        found = f"shape {tuple(row_P.shape)}, {row_P.dtype} on {row_P.device}"
        raise DataError(f"codec '{codec}': found a row of {found}: allowed is [P] with P >= 1, float32 on the CPU.")
    if not is_finite(row_P):
        raise TrainingError(f"codec '{codec}': the row holds NaN or infinity: allowed are finite numbers.")


def check_packet(packet: Tensor, codec: str, *, size: int, n_bytes: int) -> None:
    """Refuse a packet of another length than a row of `size` numbers has: DataError."""
    if packet.ndim != 1 or packet.dtype != torch.uint8 or len(packet) != n_bytes:
        found = f"a packet of shape {tuple(packet.shape)}, {packet.dtype}"
        raise DataError(
            f"codec '{codec}': found {found}, a row of {size} numbers takes {n_bytes} bytes: "
            "server and client must have the same codec and layout, and the packet must arrive whole."
        )


def refuse_damaged(damaged: bool, codec: str, what: str) -> None:
    """Refuse a packet that no row has: DataError."""
    if damaged:
        raise DataError(f"codec '{codec}': the packet is damaged, {what}: let the client send its row again.")


def as_bytes(numbers: Tensor) -> Tensor:
    """Return contiguous numbers as their bytes, without copying."""
    return numbers.contiguous().view(torch.uint8)


def as_numbers(packet: Tensor, dtype: torch.dtype) -> Tensor:
    """Return bytes as numbers, copied only where they do not begin at a multiple of a number's size."""
    aligned = packet.contiguous() if packet.storage_offset() % dtype.itemsize == 0 else packet.clone()
    return aligned.view(dtype)
