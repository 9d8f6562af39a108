"""Bytes of all answers over their bytes when compressed: high where answers repeat themselves and each other.

Source: Shaib et al., 2024, https://arxiv.org/abs/2403.00553, section 3: the ratio of gzip's compression, here by the
same algorithm of `zlib` at level 9. It grows with the texts: compare equal numbers of texts only.
"""

import math
import zlib
from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfAnswers
from fedloom.text.words import well_formed

__all__ = ["CompressionRatio"]


@plugin("compression_ratio")
class CompressionRatio(OfAnswers):
    """How many times smaller the answers become."""

    high = math.inf
    higher_is_better = False

    def score(self, texts: Sequence[str]) -> float:
        """Return the ratio."""
        plain = well_formed("\n".join(texts)).encode()
        return len(plain) / len(zlib.compress(plain, 9))
