"""Only the largest numbers of a row, with their places.

Stich et al., 2018, https://arxiv.org/abs/1809.07599, Definition 2.2 (top-k) and Algorithm 1: what was not sent stays
with the client and is added to its next row, so that every number arrives in the end. Without that feedback the small
numbers never do.

Deviations: of equal magnitudes the ones further to the front are sent, so that a packet is a function of its row.
"""

import math
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fedloom.base.errors import DataError
from fedloom.base.plugin import Range, plugin
from fedloom.contracts.federated import Codec
from fedloom.federated.codecs._packets import as_bytes, as_numbers, check_packet, check_row, refuse_damaged

__all__ = ["TopK"]

Share = Annotated[float, Range(0, 1, low_excluded=True)]


@plugin("top_k")
class TopK(Codec):
    """8 k bytes, k = ceil(share P): places as int32, rising, then the numbers as float32."""

    share: Share = 0.05
    """Share of a row's numbers that are sent; above 0.5 `float32` is smaller."""
    error_feedback: bool = True
    """Whether the client adds what was not sent to its next row."""

    def encode(self, row_P: Tensor) -> Tensor:
        """Return places and numbers; DataError for a row too long for int32."""
        check_row(row_P, "top_k")
        if len(row_P) > torch.iinfo(torch.int32).max:
            raise DataError(f"codec 'top_k': found a row of {len(row_P)} numbers, allowed is at most 2^31 - 1.")
        place_K = _largest(row_P, self._count(len(row_P)))
        return torch.cat([as_bytes(place_K.int()), as_bytes(row_P[place_K])])

    def decode(self, packet: Tensor, size: int) -> Tensor:
        """Return the row, zero where nothing was sent; DataError for a wrong length, places or numbers."""
        count = self._count(size)
        check_packet(packet, "top_k", size=size, n_bytes=8 * count)
        place_K = as_numbers(packet[: 4 * count], torch.int32).long()
        number_K = as_numbers(packet[4 * count :], torch.float32)
        inside = int(place_K[0]) >= 0 and int(place_K[-1]) < size and bool((place_K[1:] > place_K[:-1]).all())
        refuse_damaged(not inside, "top_k", f"places do not rise within 0 to {size - 1}")
        refuse_damaged(not bool(torch.isfinite(number_K).all()), "top_k", "it holds NaN or infinity")
        return torch.zeros(size).scatter_(0, place_K, number_K)

    def feedback(self) -> bool:
        """Return the field `error_feedback`."""
        return self.error_feedback

    def _count(self, size: int) -> int:
        """Return k; rounding first takes 0.07 * 100 = 7.000000000000001 for 7."""
        return max(1, math.ceil(round(self.share * size, 6)))


def _largest(row_P: Tensor, count: int) -> Tensor:
    """Return the places of the `count` numbers of largest magnitude, rising; of equal ones, the first."""
    size_P = row_P.abs().numpy()
    limit = np.partition(size_P, len(size_P) - count)[len(size_P) - count]  # the smallest magnitude that is sent
    above = np.flatnonzero(size_P > limit)
    level = np.flatnonzero(size_P == limit)[: count - len(above)]
    return torch.from_numpy(np.sort(np.concatenate([above, level])))
