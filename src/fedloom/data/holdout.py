"""Records of each client set aside for its evaluation, so that no text in them occurs in any client's training."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.rng import python_random, seed_of
from fedloom.contracts.examples import Example

__all__ = ["HoldOut", "SetAside", "hold_out", "hold_out_by_text", "keys", "normalised", "owners", "question_key"]


@dataclass(frozen=True)
class SetAside:
    """What no client trains on: a share of each client's examples, and clients that take no part."""

    fraction: float = 0.0
    by_text: bool = False
    """Whether a coin decides about each text, not a number about each client."""
    group: str = ""
    """Tag of examples that stay on one side together; "" keeps equal texts together alone."""
    absent: tuple[str, ...] = ()
    """Clients whose examples are the common test."""


@dataclass(frozen=True)
class HoldOut:
    """Indices by client: what trains, what is held out, and the clients too small to hold out anything."""

    train: dict[str, list[int]]
    held: dict[str, list[int]]
    """Every client has an entry; of those in `too_small` it is empty."""
    too_small: tuple[str, ...]


def normalised(example: Example) -> str:
    """Return the key by which two examples are one: Unicode form KC, case folded, runs of white space as one blank."""
    return question_key(example.key)


def question_key(question: str) -> str:
    """Return the text by which two questions are the same: Unicode form KC, case folded, white space as one blank."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def keys(indices: Mapping[str, Sequence[int]], examples: Sequence[Example], group: str = "") -> dict[int, str]:
    """Return by index what examples have in common that stay on one side: their text, or the value of a tag.

    Raises DataError where an example lacks the tag, or one text stands under two of its values.
    """
    texts = {index: normalised(examples[index]) for owned in indices.values() for index in owned}
    if not group:
        return texts
    value_of: dict[str, str] = {}
    for index, text in texts.items():
        if group not in (tags := examples[index].tags):
            raise DataError(
                f"evaluation.holdout_group: an example has no tag '{group}', its tags are {', '.join(tags) or 'none'}; "
                "give every record the tag, by data.tags."
            )
        value = question_key(tags[group])
        if (other := value_of.setdefault(text, value)) != value:
            raise DataError(
                f"evaluation.holdout_group: one text stands under '{other}' and under '{value}' of the tag '{group}', "
                "and cannot be on both sides; give it one value, or leave one of the two out."
            )
    return {index: value_of[text] for index, text in texts.items()}


def hold_out(
    indices: Mapping[str, Sequence[int]],
    examples: Sequence[Example],
    *,
    fraction: float,
    minimum: int,
    seed: int,
    group: str = "",
) -> HoldOut:
    """Return the split of each client's records, drawn from the seed and the client's name alone.

    Each client holds out round(fraction * n), at least `minimum`, and trains on at least one. Equal texts of a client,
    or all its examples of one `group`, stay on one side; what several clients hold is never held out, since another
    client would train on it. A client that cannot reach `minimum` under these rules trains on all and is listed.

    Raises ConfigError if the fraction is not in [0, 1) or the minimum is below 1.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"held-out fraction: found {fraction!r}, allowed is a number >= 0 and < 1.")
    if minimum < 1:
        raise ConfigError(f"held-out minimum: found {minimum}, allowed is a whole number >= 1.")
    texts = keys(indices, examples, group)
    n_owners = owners([texts[index] for index in owned] for owned in indices.values())
    held: dict[str, list[int]] = {}
    for client, owned in indices.items():
        target = max(minimum, round(fraction * len(owned)))
        chosen = _choose(_groups(owned, texts, n_owners), min(target, len(owned) - 1), seed, client)
        held[client] = chosen if len(chosen) >= minimum else []
    return _parted(indices, held)


def hold_out_by_text(
    indices: Mapping[str, Sequence[int]],
    examples: Sequence[Example],
    *,
    fraction: float,
    seed: int,
    turn: int = 0,
    group: str = "",
) -> HoldOut:
    """Return a split in which each text, or each `group`, is held out with probability `fraction` by a coin of its own.

    The coin is a hash of seed, `turn` and text, the same at every client. So a record that leaves or joins changes
    nothing about the others, at its client or elsewhere, which privacy rests on; shares are met on average only. A
    client all of whose texts fall out trains on none.
    """
    texts = keys(indices, examples, group)
    held = {
        client: [index for index in owned if _coin(texts[index], seed, turn) < fraction]
        for client, owned in indices.items()
    }
    return _parted(indices, held)


def _parted(indices: Mapping[str, Sequence[int]], held: dict[str, list[int]]) -> HoldOut:
    train = {client: sorted(set(owned) - set(held[client])) for client, owned in indices.items()}
    return HoldOut(train, held, tuple(client for client, chosen in held.items() if not chosen))


def _coin(text: str, seed: int, turn: int) -> float:
    return seed_of(seed, "hold_out", turn, text) / 2**63


def owners(texts: Iterable[Iterable[str]]) -> Counter[str]:
    """Return how many clients hold each text, from the texts of each client."""
    return Counter(text for owned in texts for text in set(owned))


def _groups(owned: Sequence[int], texts: Mapping[int, str], n_owners: Mapping[str, int]) -> list[list[int]]:
    """Return the indices of each text that only this client holds, by text, so that file order plays no part."""
    groups: dict[str, list[int]] = {}
    for index in owned:
        if n_owners[texts[index]] == 1:
            groups.setdefault(texts[index], []).append(index)
    return [groups[text] for text in sorted(groups)]


def _choose(groups: list[list[int]], target: int, seed: int, client: str) -> list[int]:
    """Return whole groups, drawn at random, of together at most `target` indices; a group too large is passed over."""
    chosen: list[int] = []
    for group in python_random(seed, "hold_out", client).sample(groups, len(groups)):
        if len(chosen) + len(group) <= target:
            chosen += group
    return sorted(chosen)
