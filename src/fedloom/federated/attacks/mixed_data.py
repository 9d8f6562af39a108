"""Safety attack by data that is partly benign, against rules that tell rows apart: a share of pairs among its own.

The adaptive form of `unaligned_data` (https://arxiv.org/abs/2406.10630): the fewer pairs, the nearer the row lies to
those of benign clients. With share = 1 it is `unaligned_data`.

Deviations: none; the study has no such arm.
"""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base import rng
from fedloom.base.plugin import Fraction, plugin
from fedloom.contracts.attack import Attack
from fedloom.contracts.examples import Example

__all__ = ["MixedData"]


@plugin("mixed_data")
class MixedData(Attack):
    """Trains on some pairs and on some of its own examples."""

    needs_pairs: ClassVar[bool] = True
    share: Fraction = 0.5
    """Of pairs among what it trains on."""

    def examples(self, own: Sequence[Example], drawn: Sequence[Example], client: str, seed: int) -> Sequence[Example]:
        """Return a share of the pairs and, for the rest, examples of its own, in an order drawn anew."""
        random, n_pairs = rng.python_random("mixed", seed, client), round(self.share * len(own))
        mixed = [*drawn[:n_pairs], *random.sample(list(own), len(own) - n_pairs)]
        random.shuffle(mixed)
        return mixed
