"""Answers token by token: rows stand in slots, and the next prompt takes the place of an answer that has ended.

What is read, and how it is kept, is a `Reader`'s (`reading`): a plain Llama takes the next prompts as soon as a quarter
of its slots is free, other models once all answers of a batch have ended.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from torch import Tensor

from fedloom.base.tree import Tree
from fedloom.contracts.language import LanguageModel
from fedloom.models.reading import reader

__all__ = ["Ended", "Pick", "complete", "decode"]

Pick = Callable[[Tensor, Sequence[int]], Tensor]
"""Gives the next tokens [B] from logits [B, V] and the places of their prompts."""
Ended = Callable[[int, Sequence[int]], bool]
"""Tells from a prompt's place and its new tokens whether its answer ends here."""


def _greedy(logits_BV: Tensor, _: Sequence[int]) -> Tensor:
    return logits_BV.argmax(-1)


def _never(_: int, __: Sequence[int]) -> bool:
    return False


def complete(
    model: LanguageModel,
    params: Tree,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Collection[int],
    max_new_tokens: int,
    owners: int = 1,
    slots: int | None = None,
) -> list[list[int]]:
    """Return the greedy new tokens of each prompt, as `decode` gives them; without `slots` all rows at once."""
    found: list[list[int]] = [[] for _ in prompts]
    most = slots or max(1, len(prompts))
    answers = decode(model, params, prompts, stop=stop, max_new_tokens=max_new_tokens, owners=owners, slots=most)
    for row, tokens in answers:
        found[row] = tokens
    return found


def decode(
    model: LanguageModel,
    params: Tree,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Collection[int],
    max_new_tokens: int,
    slots: int,
    pick: Pick = _greedy,
    ended: Ended = _never,
    owners: int = 1,
) -> Iterator[tuple[int, list[int]]]:
    """Yield the place of each prompt and its new tokens, at least one, as answers end; the last may be of `stop`.

    At most `slots` rows are written at once. With several `owners` the parameters are stacked, and the prompts are as
    many for each, owner by owner: of each column of them one prompt, whose slots are free once all have ended.
    """
    if not prompts:
        return
    width = len(prompts) // owners
    reading = reader(model, params, prompts, owners)
    most = reading.most or max(1, slots // owners)
    waiting = deque(range(width))
    columns: list[int] = []
    found: list[list[int]] = [[] for _ in prompts]
    over = [False] * len(prompts)
    while waiting or columns:
        n_free = most - len(columns)
        if waiting and (not columns or (reading.refills and 4 * n_free >= most)):
            new = [waiting.popleft() for _ in range(min(n_free, len(waiting)))]
            columns += new
            logits_BV = reading.admit([prompts[k * width + c] for k in range(owners) for c in new])
        else:
            new = columns
            logits_BV = reading.step([found[k * width + c][-1] for k in range(owners) for c in columns])
        rows = [k * width + c for k in range(owners) for c in new]
        for row, token in zip(rows, pick(logits_BV, rows).tolist(), strict=True):
            if not over[row]:
                found[row].append(token)
                over[row] = token in stop or len(found[row]) == max_new_tokens or ended(row, found[row])
        gone = {c for c in new if all(over[k * width + c] for k in range(owners))}
        if gone:
            kept = _closed_up([column not in gone for column in columns])
            columns = [columns[place] for place in kept]
            reading.keep(kept)
        for column in sorted(gone):
            yield from ((row, found[row]) for row in range(column, len(prompts), width))


def _closed_up(stays: Sequence[bool]) -> list[int]:
    """Return the places that stay, the last ones in the gaps, so that few rows move.

    >>> _closed_up([True, False, True, True])
    [0, 3, 2]
    """
    n_left = sum(stays)
    tail = [place for place in range(len(stays) - 1, n_left - 1, -1) if stays[place]]
    fill = iter(tail)
    return [place if stays[place] else next(fill) for place in range(n_left)]
