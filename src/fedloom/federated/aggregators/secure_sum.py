"""The mean of rows of which the server sees the sum alone, as whole numbers modulo 2^32.

Bonawitz et al. 2017, https://doi.org/10.1145/3133956.3133982, figure 4, over the graph of Bell et al. 2020,
https://eprint.iacr.org/2020/704, between machines (`secure_sum/`, `network/`). In one process the same whole numbers
are added without masks, which cancel: the sum is the same bit for bit. What it hides and what not: docs/secure_sums.md.

Deviations: numbers are clipped at `clip` and rounded to multiples of clip / 2^bits; clipped ones are counted under the
mask. Lying clients are not seen: no rule that looks at rows can be had with it.
"""

import logging
import math
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import Fraction, NonNegative, Positive, Range, plugin
from fedloom.base.rows import check_row
from fedloom.contracts.aggregation import Aggregate, Aggregator, Frame, SumAccumulator
from fedloom.contracts.messages import WholeSum
from fedloom.secure_sum.graph import SMALL, Size, smallest
from fedloom.secure_sum.numbers import Numbers, row_bytes, row_of

__all__ = ["SecureSum", "as_bytes", "as_numbers"]

_log = logging.getLogger(__name__)


@plugin("secure_sum")
class SecureSum(Aggregator):
    """The mean, of which the server sees the sum alone."""

    sum_only: ClassVar[bool] = True

    clip: Positive = 1.0
    """The largest magnitude of a number of a row; larger ones are clipped and counted."""
    bits: Annotated[int, Range(1, 30)] = 20
    """A number is a multiple of clip / 2^bits; rows of at most 2^(31 - bits) clients are added."""
    norm: NonNegative = 0.0
    """The largest norm of a row, to which longer ones are scaled down; 0: any."""
    largest_weight: NonNegative = 0.0
    """What the largest weight counts as one, so that weights are summed under the mask; 0: all rows count alike."""
    colluding: Fraction = 0.1
    """Share of a round's clients that may work with the server."""
    lost: Fraction = 0.1
    """Share of a round's clients that may be lost on the way."""

    @property
    def numbers(self) -> Numbers:
        """How rows become whole numbers; where the norm keeps every number inside the clip, none has to be counted."""
        counted = not 0 < self.norm <= self.clip
        return Numbers(
            2**31 >> self.bits, self.bits, self.clip, self.norm or math.inf, self.largest_weight > 0, counted
        )

    def size(self, clients: int) -> Size:
        """Return with how many others a client shares a mask, and how many shares give back a secret."""
        # Where everybody shares masks with everybody, the threshold follows from their number alone.
        return smallest(clients, colluding=self.colluding, lost=self.lost if clients >= SMALL else 0.0)

    def share(self, weight: float) -> float:
        """Return a weight as a share of the largest; DataError for one that is larger, or where all count alike."""
        if not self.largest_weight:
            if weight != 1:
                raise DataError(
                    f"secure_sum: found weight {weight:g}, allowed is 1, as all count alike; set weighting = "
                    "'uniform', or aggregator.largest_weight."
                )
            return 1.0
        if weight > self.largest_weight:
            raise DataError(
                f"secure_sum: found weight {weight:g}, allowed is aggregator.largest_weight = {self.largest_weight:g}; "
                "raise it, or set max_weight."
            )
        return weight / self.largest_weight

    def check_count(self, n_rows: int) -> None:
        """Refuse rounds of so few clients that a sum tells rows, and of more than the bits leave room for."""
        if not 3 <= n_rows <= self.numbers.clients:
            raise ConfigError(
                f"aggregator.bits: found {self.bits} with {n_rows} clients a round, allowed are 3 to "
                f"{self.numbers.clients}; lower the bits, or ask other numbers of clients."
            )

    def upload_bytes(self, size: int) -> int:
        """Return the bytes of a masked row of so many numbers."""
        return 4 * self.numbers.size(size)

    def summand(self, row_P: Tensor, weight: float) -> Tensor:
        """Return a client's row [P] and weight as whole numbers [S], 4 S bytes."""
        return as_bytes(self.numbers.encode(row_P.numpy(), self.share(weight)))

    def whole_sum(self, numbers: int, *, clients: int, least: int) -> WholeSum:
        """Return what the noise in a sum is accounted by; refused are rows that nothing bounds, and too few honest."""
        if self.numbers.counted or self.numbers.weighted:
            raise ConfigError(
                f"aggregator: found norm {self.norm:g}, clip {self.clip:g} and largest_weight {self.largest_weight:g} "
                "beside noise in the sum, allowed are 0 < norm <= clip and no weights: the norm bounds what a client "
                "can change; set them."
            )
        colluding = math.ceil(self.colluding * clients)
        if least - colluding < 1:
            raise ConfigError(
                f"aggregator.colluding: found {colluding} of {clients} clients beside sums of {least}, allowed is "
                "fewer than that: only honest clients' noise counts; raise min_clients, or lower it."
            )
        return WholeSum(numbers, clients, least - colluding, self.bits, self.clip, self.norm)

    def accumulator(self, frame: Frame) -> SumAccumulator:
        """Return a running sum of whole numbers."""
        return _Summing(self)

    def __call__(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Tensor:
        """Return the mean of rows of equal weight, or of weights that are shares of the largest."""
        summing = _Summing(self)
        largest = float(weight_N.max())
        for row_P, weight in zip(rows_NP, weight_N.tolist(), strict=True):
            summing.add(row_P, weight / largest * self.largest_weight if self.largest_weight else 1.0)
        return summing.result().row_P


def as_bytes(row_S: NDArray[np.uint32]) -> Tensor:
    """Return whole numbers [S] as a packet, uint8."""
    return torch.frombuffer(bytearray(row_bytes(row_S)), dtype=torch.uint8)


def as_numbers(packet: Tensor) -> NDArray[np.uint32]:
    """Return the whole numbers [S] of a packet, over its memory; DataError for another length."""
    return row_of(packet.numpy())


class _Summing:
    """One sum [S], to which rows are added here, or which comes as it is."""

    def __init__(self, rule: SecureSum) -> None:
        self._rule, self._rows = rule, 0
        self._sum_S: NDArray[np.uint32] | None = None
        self._first: tuple[torch.dtype, torch.Size] | None = None

    def add(self, row_P: Tensor, weight: float, client: str = "") -> None:
        """Add one client's row."""
        check_row(row_P, weight, self._first, index=self._rows)
        self._first = (row_P.dtype, row_P.shape)
        self.add_sum(self._rule.summand(row_P, weight), 1)

    def add_sum(self, packet: Tensor, rows: int) -> None:
        """Take a row, or a sum of so many that was made where nobody saw them: 4 S bytes."""
        row_S = as_numbers(packet)
        if self._sum_S is not None and row_S.shape != self._sum_S.shape:
            raise DataError(
                f"secure_sum: found {len(row_S)} whole numbers beside {len(self._sum_S)}, allowed are rows of one "
                "length."
            )
        self._sum_S = row_S if self._sum_S is None else self._sum_S + row_S
        self._rows += rows

    def result(self) -> Aggregate:
        """Return the mean, and which share of the numbers was clipped."""
        if self._sum_S is None:
            raise DataError("a round without rows has no aggregate: at least one client must report.")
        total = self._rule.numbers.decode(self._sum_S, self._rows)
        if total.warning:
            _log.warning("%s", total.warning)
        row_P = torch.from_numpy(total.mean_P())
        return Aggregate(row_P, {"saturated": total.saturated / max(1, self._rows * len(row_P))})
