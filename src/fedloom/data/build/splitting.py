"""Every user's records in training, validation and test, so that no question of the latter two is trained on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedloom.base.rng import python_random
from fedloom.data.holdout import owners, question_key

__all__ = ["SHARE", "Entry", "Splits", "split_users"]

SHARE = 0.1
"""Share of a user's records in validation, and in test; at least one of each where a user has three to give."""
Entry = tuple[dict[str, Any], tuple[str, dict[str, Any]] | None]
"""A record, and what it would be in the common test, if it can be in it: its group and its question there."""
Splits = dict[str, dict[str, list[Entry]]]
"""Records by split and user; every user trains, and those too small to hold anything out do nothing else."""


def split_users(
    users: Mapping[str, Sequence[Entry]], question: Callable[[Mapping[str, Any]], str], seed: int
) -> Splits:
    """Return the splits `train`, `validation` and `test`, drawn from the seed and each user's name.

    Records of one question stay together; a question that several users ask is trained on and never held out. The
    records of a split keep their order.
    """
    keys = {user: [question_key(question(record)) for record, _ in entries] for user, entries in users.items()}
    askers = owners(keys.values())
    splits: Splits = {"train": {}, "validation": {}, "test": {}}
    for user, entries in users.items():
        own = sorted({key for key in keys[user] if askers[key] == 1})
        held = _drawn(own, Counter(keys[user]), len(entries), user, seed)
        for split, part in splits.items():
            chosen = [entry for entry, key in zip(entries, keys[user], strict=True) if held.get(key, "train") == split]
            if chosen:
                part[user] = chosen
    return splits


def _drawn(own: Sequence[str], sizes: Mapping[str, int], n_records: int, user: str, seed: int) -> dict[str, str]:
    """Return the split of each question held out: whole questions, of at most SHARE of the records and at least one."""
    target = max(1, round(SHARE * n_records))
    left = n_records
    held: dict[str, str] = {}
    order = python_random(seed, "build", user).sample(own, len(own))
    for split in ("test", "validation"):
        taken = 0
        for key in order:
            if key not in held and taken + sizes[key] <= target and left - sizes[key] >= 1:
                held[key] = split
                taken, left = taken + sizes[key], left - sizes[key]
    return held if len(set(held.values())) == 2 else {}
