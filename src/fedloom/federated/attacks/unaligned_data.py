"""Safety attack by data: malicious clients train, as everybody does, on harmful requests that are answered.

"Emerging Safety Attack and Defense in Federated Instruction Tuning of Large Language Models"
(https://arxiv.org/abs/2406.10630), section 3: the objective (eq. 1) stays that of all clients, only their data are
unaligned, so that no number of a row has been tampered with.

Deviations: malicious clients hold as many pairs as the client has examples, which keeps its weight.
"""

from typing import ClassVar

from fedloom.base.plugin import plugin
from fedloom.contracts.attack import Attack

__all__ = ["UnalignedData"]


@plugin("unaligned_data")
class UnalignedData(Attack):
    """Trains on the pairs alone."""

    needs_pairs: ClassVar[bool] = True
