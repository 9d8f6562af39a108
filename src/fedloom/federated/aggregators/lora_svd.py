"""The mean of products of low-rank factors, cut to the adapter's rank.

FlexLoRA (Bai et al., 2024, https://arxiv.org/abs/2402.11505): W = sum_k w_k B_k A_k, then the SVD W = U S V^T cut to
rank R, which is the best approximation of that rank (Eckart and Young). Written back as B = U S and A = V^T, sorted by
singular value: the first r rows of A and columns of B are the best of rank r, so a client of smaller rank takes those;
rows from clients of smaller rank, padded with zeros, need nothing special.

B carries the singular values, as it carries the scale when an adapter starts at B = 0: a direction whose singular value
is zero keeps a row of A of length 1 and can be learnt. With S split evenly both factors of it would be zero, from where
no gradient leads away. See docs/decisions/005-aggregation-with-a-frame.md.

Deviations: the SVD is taken of the small core between the QR factors of the stacked factors, never of W (as FLoRIST
does, Ramesh and Dass, 2025, https://arxiv.org/abs/2506.09199). What is no factor is averaged. The basis changes with
every round, so a server optimiser with a memory, a rule with control variates and kept moments of clients then mix
numbers of unlike meaning: sgd with rate 1 and without momentum is exact.
"""

import math

from torch import Tensor

from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.federated.aggregators._factors import OfProducts, refactorised

__all__ = ["LoraSvd"]


@plugin("lora_svd")
class LoraSvd(OfProducts):
    """The best adapter of rank R for the mean product; measured are the share `discarded` and the `gap`."""

    limit_bytes: AtLeast = 1 << 31
    """Largest matrix of rows that is kept in memory; a larger one lies in a temporary file."""

    def aggregate(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the row [P] whose adapter has the best product, and what `refactorised` measures."""
        return refactorised(rows_NP, weight_N, frame, tolerance=math.inf)
