"""Texts as long as a multiple of a bucket, so that the sizes of messages tell less of how long they are.

    sent length = bucket * ceil(length / bucket), at most what the model has positions for

Each sequence is followed by copies of its last token that nobody predicts: a causal model's states of the tokens
before do not depend on them, so that loss and gradients are those of the text alone. They travel like any token;
bytes grow by it.

What it hides, and from whom: an observer of the line sees bucketed lengths alone (T12 of the specification). The
server does not need more either, but is not kept from it: gradients of tokens that nobody predicts are zero, unless
noise lies on them, and a text that is read off its states ends where its last token begins to repeat.

Deviations: dropout is drawn for the longer text, so that with dropout a bucket gives other numbers of the same kind.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from fedloom.contracts.language import Encoded

__all__ = ["bucketed", "rounded"]


def rounded(length: int, bucket: int, most: int | None = None) -> int:
    """Return a length as it is sent; a bucket of 0 leaves it.

    >>> rounded(5, 4), rounded(8, 4), rounded(5, 0), rounded(5, 4, most=7)
    (8, 8, 5, 7)
    """
    if not bucket:
        return length
    up = -(-length // bucket) * bucket
    return max(length, min(up, most or up))


def bucketed(items: Sequence[Encoded], bucket: int, most: int | None = None) -> Sequence[Encoded]:
    """Return texts as long as they are sent; `most` is the longest that the model has positions for."""
    return [_longer(item, bucket, most) for item in items] if bucket else items


def _longer(item: Encoded, bucket: int, most: int | None) -> Encoded:
    wanted = [rounded(length, bucket, most) for length in item.lengths]
    tokens, supervised = (part.split(item.lengths) for part in (item.tokens_T, item.supervised_T))
    more = [n - len(one) for n, one in zip(wanted, tokens, strict=True)]
    tokens = [torch.cat((one, one[-1:].expand(n))) for one, n in zip(tokens, more, strict=True)]
    supervised = [torch.cat((one, one.new_zeros(n))) for one, n in zip(supervised, more, strict=True)]
    cuts = tuple(accumulate(wanted))[:-1]
    return replace(item, tokens_T=torch.cat(tokens), supervised_T=torch.cat(supervised), cuts=cuts)
