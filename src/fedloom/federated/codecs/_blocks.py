"""Symmetric rounding in blocks: each block of consecutive numbers has a scale of its own.

A block's quantum is its largest magnitude over the number of levels; numbers are rounded to the nearest multiple and
lose at most half a quantum. A block whose quantum would be below the smallest normal float32 counts as zero.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from fedloom.federated.codecs._packets import as_numbers, refuse_damaged

__all__ = ["dequantised", "n_blocks", "quantised", "read_quanta"]

_CHUNK = 1 << 16
"""Numbers handled at a time, so that what lies between the steps stays in the cache; a multiple of every block."""


def n_blocks(size: int, block: int) -> int:
    """Return the number of blocks of a row; the last may be shorter."""
    return -(-size // block)


def quantised(row_P: Tensor, *, block: int, levels: int) -> tuple[Tensor, Tensor]:
    """Return (quanta [n_blocks] float32, multiples [P] int8 from -levels to levels)."""
    quantum_M = torch.empty(n_blocks(len(row_P), block))
    multiple_P = torch.empty(len(row_P), dtype=torch.int8)
    for part_C, quantum, multiple in _chunks(row_P, quantum_M, multiple_P, block):
        blocks_MC = functional.pad(part_C, (0, -len(part_C) % block)).view(-1, block)
        torch.amax(blocks_MC.abs(), dim=1, out=quantum)
        quantum.div_(levels)
        quantum.masked_fill_(quantum < torch.finfo(torch.float32).tiny, 0)
        # 0 / 0 cannot happen: zero blocks are divided by infinity.
        divisor_M1 = quantum.masked_fill(quantum == 0, float("inf"))[:, None]
        multiple.copy_((blocks_MC / divisor_M1).round_().view(-1)[: len(part_C)])
    return quantum_M, multiple_P


def dequantised(quantum_M: Tensor, multiple_P: Tensor, *, block: int) -> Tensor:
    """Return the row [P] of multiples of their blocks' quanta."""
    row_P = torch.empty(len(multiple_P))
    for part_C, quantum, multiple in _chunks(row_P, quantum_M, multiple_P, block):
        blocks_MC = functional.pad(multiple.float(), (0, -len(part_C) % block)).view(-1, block)
        part_C.copy_(blocks_MC.mul_(quantum[:, None]).view(-1)[: len(part_C)])
    return row_P


def _chunks(row_P: Tensor, quantum_M: Tensor, multiple_P: Tensor, block: int) -> Iterator[tuple[Tensor, ...]]:
    parts = (row_P.split(_CHUNK), quantum_M.split(_CHUNK // block), multiple_P.split(_CHUNK))
    return zip(*parts, strict=True)


def read_quanta(packet: Tensor, codec: str) -> Tensor:
    """Return the quanta that lie in a packet; DataError for what is no quantum."""
    quantum_M = as_numbers(packet, torch.float32)
    refuse_damaged(not bool((torch.isfinite(quantum_M) & (quantum_M >= 0)).all()), codec, "a scale is no number >= 0")
    return quantum_M
