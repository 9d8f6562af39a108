"""Who owns what: load examples, divide them among clients, hold some out, encode the rest once, count everything."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from random import Random
from typing import Any, Literal

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError, suggest
from fedloom.contracts.examples import Example, tagged
from fedloom.contracts.federated import Item, Model, Partition, Shard, Source, Task
from fedloom.contracts.generation import is_generated
from fedloom.data.card import partition_card
from fedloom.data.holdout import HoldOut, SetAside, hold_out, hold_out_by_text, keys, normalised
from fedloom.data.remarks import collected

__all__ = [
    "AllToOne",
    "Division",
    "cut_and_dropped",
    "divide",
    "encode_shards",
    "lost_shares",
    "refuse_measured",
]


_TOLERABLE = 0.2  # share of examples cut or dropped beyond which a run warns


@dataclass(frozen=True)
class Division:
    """The examples of a run by client, and those that belong to none."""

    train: Mapping[str, tuple[Example, ...]]
    validation: Mapping[str, tuple[Example, ...]]
    test: tuple[Example, ...]
    card: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    """SHA-256 of each client's own training examples, by which a lineage knows them again, whatever is made of them."""
    public: tuple[Example, ...] = ()
    """Those that nobody owns and nobody is measured by."""
    quality: Mapping[str, float] = field(default_factory=dict[str, float])
    """By what each client's examples count beside their number; of one that is not named 1."""


class AllToOne(Partition):
    """All examples belong to one client: what a client's own machine knows of a run's data."""

    def __init__(self, client: str) -> None:
        self._client = client

    def heterogeneity(self) -> str:
        """Return "one owner"."""
        return "one owner"

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return all indices under the client's name."""
        return {self._client: list(range(len(examples)))}


def divide(
    source: Source,
    partition: Partition,
    *,
    n_clients: int,
    seed: int,
    aside: SetAside,
    split: Literal["report", "tune"] = "report",
) -> Division:
    """Return every client's training and validation examples, and the common test examples.

    A source without a validation split gives up the share of each client's examples that `aside` names for it: a
    number of them, or by text each by a coin of its own, so that no record decides about another. Examples of absent
    clients are the common test, but for those of groups that others train on. To tune, no example is used that a
    report is about: there is no test, and where the validation examples are what is reported, they are set aside and
    as large a share of the rest is held out in their place.
    """
    with collected() as left_out:
        splits = dict(source.load())
    examples = splits.get("train", ())
    if not examples:
        raise DataError("data: the source has no training examples; check its path and split.")
    indices = partition(examples, n_clients, rng.python_random(seed, "partition"))
    if "" in indices:
        raise DataError(f"data: {len(indices[''])} records belong to a client without a name; give every client one.")
    indices, strangers = _without(indices, aside.absent, splits)
    card = partition_card(examples, indices, seed) | ({"remarks": left_out} if left_out else {})
    card["heterogeneity"] = partition.heterogeneity()
    if aside.absent:
        asked, n_known = _unknown(strangers, indices, examples, aside.group)
        splits["test"] = asked
        card["absent"] = {"clients": list(aside.absent), "asked": len(asked), "of_groups_trained_on": n_known}
    reported = splits.pop("test", ()) if split == "tune" else splits.get("test", ())
    anew = split == "tune" and not reported
    train: Mapping[str, Sequence[int]] = indices
    held: Mapping[str, Sequence[int]] = dict.fromkeys(indices, ())
    n_times = ("validation" not in splits) + anew
    for turn in range(n_times if aside.fraction > 0 else 0):
        parts = _held_out(train, examples, aside, seed, turn)
        train, held = parts.train, parts.held
        card["without_validation"] = list(parts.too_small)
    validation = {client: tuple(tagged(examples[i], client=client) for i in chosen) for client, chosen in held.items()}
    if "validation" in splits and not anew:
        validation = _by_client(splits["validation"], indices)
    if split == "tune" and not any(validation.values()):
        raise DataError("data: found no validation examples to tune by; set evaluation.holdout above 0.")
    _refuse_overlap(examples, indices, splits)
    public = tuple(splits.get("public", ()))
    refuse_measured(public, (*splits.get("test", ()), *(one for part in validation.values() for one in part)), "public")
    own = {client: tuple(examples[index] for index in chosen) for client, chosen in train.items()}
    fingerprints = {client: hashlib.sha256(repr(owned).encode()).hexdigest() for client, owned in own.items()}
    return Division(own, validation, tuple(splits.get("test", ())), card, fingerprints, public)


def refuse_measured(examples: Sequence[Example], measured: Sequence[Example], what: str) -> None:
    """Refuse what generators are fitted on, or have made, where it is an example by which is measured."""
    places = {normalised(example): at for at, example in enumerate(measured)}
    for at, example in enumerate(examples):
        if (other := places.get(normalised(example))) is not None:
            raise DataError(
                f"data: {what} example {at} is held-out example {other}; what is measured must be unknown to a "
                "generator: remove one of the two."
            )


def _held_out(
    train: Mapping[str, Sequence[int]], examples: Sequence[Example], aside: SetAside, seed: int, turn: int
) -> HoldOut:
    if aside.by_text:
        return hold_out_by_text(train, examples, fraction=aside.fraction, seed=seed, turn=turn, group=aside.group)
    return hold_out(train, examples, fraction=aside.fraction, minimum=1, seed=seed, group=aside.group)


def _without(
    indices: Mapping[str, Sequence[int]], absent: Sequence[str], splits: Mapping[str, Any]
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the clients that take part, and those that do not; names that are no client's are refused."""
    unknown = [client for client in absent if client not in indices]
    if unknown:
        raise ConfigError(f"evaluation.absent: no client is called '{unknown[0]}'. {suggest(unknown[0], indices)}")
    if absent and "test" in splits:
        raise ConfigError("evaluation.absent: found it with data that have a test of their own; use one of the two.")
    if absent and len(set(absent)) == len(indices):
        raise ConfigError("evaluation.absent: found every client; at least one has to take part.")
    away = {client: list(indices[client]) for client in dict.fromkeys(absent)}
    return {client: list(owned) for client, owned in indices.items() if client not in away}, away


def _unknown(
    strangers: Mapping[str, Sequence[int]],
    indices: Mapping[str, Sequence[int]],
    examples: Sequence[Example],
    group: str,
) -> tuple[list[Example], int]:
    """Return absent clients' examples of texts, or groups, that no other client has, each client's in turn.

    With it the number of those left out.
    """
    known = set(keys(indices, examples, group).values())
    of = keys(strangers, examples, group)
    asked = {
        client: [tagged(examples[index], client=client) for index in owned if of[index] not in known]
        for client, owned in strangers.items()
    }
    in_turn = [one for row in zip_longest(*asked.values()) for one in row if one is not None]
    return in_turn, len(of) - len(in_turn)


def _refuse_overlap(
    examples: Sequence[Example], indices: Mapping[str, Sequence[int]], splits: Mapping[str, Sequence[Example]]
) -> None:
    """Refuse a split that repeats training texts: its scores would measure memory."""
    trained = {normalised(examples[index]) for owned in indices.values() for index in owned}
    for name in ("validation", "test"):
        part = splits.get(name, ())
        repeated = [index for index, example in enumerate(part) if normalised(example) in trained]
        if repeated:
            raise DataError(
                f"data: {len(repeated)} of {len(part)} {name} examples, the first number {repeated[0]}, also stand in "
                "the training data; remove them from one of the two."
            )


def _by_client(examples: Sequence[Example], clients: Mapping[str, Any]) -> dict[str, tuple[Example, ...]]:
    grouped: dict[str, list[Example]] = {client: [] for client in clients}
    strangers = [example for example in examples if example.tags.get("client") not in grouped]
    if strangers:
        raise DataError(
            f"data: {len(strangers)} of {len(examples)} validation examples belong to no client of the partition; give "
            "them the tag 'client', or leave out the validation data and set evaluation.holdout."
        )
    for example in examples:
        grouped[example.tags["client"]].append(example)
    return {client: tuple(owned) for client, owned in grouped.items()}


def encode_shards(division: Division, task: Task, model: Model) -> tuple[dict[str, Shard], dict[str, dict[str, int]]]:
    """Return every client's encoded examples and the counts of what happened to them; nothing is dropped silently.

    An example without a supervised token cannot be learnt from and is counted, not kept; a client left with none is
    refused.
    """
    kept: dict[str, list[Item]] = {}
    made: dict[str, frozenset[int]] = {}
    counts: dict[str, dict[str, int]] = {}
    for client, examples in division.train.items():
        _refuse_other_kinds(client, examples, task)
        items = [task.encode(example, model) for example in examples]
        learnt = [at for at, item in enumerate(items) if task.targets(item)]
        kept[client] = [items[at] for at in learnt]
        made[client] = frozenset(place for place, at in enumerate(learnt) if is_generated(examples[at]))
        if not items:
            raise DataError(f"client '{client}' has 0 training examples; allowed is at least 1.")
        if not kept[client]:
            raise DataError(
                f"client '{client}': none of its {len(items)} examples has a supervised token; raise max_length."
            )
        counts[client] = task.counts(items)
    quality = division.quality
    shards = {client: Shard(tuple(items), quality.get(client, 1.0), made[client]) for client, items in kept.items()}
    return shards, counts


def _refuse_other_kinds(client: str, examples: Sequence[Example], task: Task) -> None:
    odd = [index for index, example in enumerate(examples) if not isinstance(example, task.learns)]
    if odd:
        kinds = " and ".join(kind.__name__ for kind in task.learns)
        raise DataError(
            f"client '{client}': training example {odd[0]} is a {type(examples[odd[0]]).__name__}, task '{task.name}' "
            f"learns from {kinds} examples; choose another task or another form of the data."
        )


def lost_shares(encoded: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Return what shares of the training examples were cut, dropped, and have an empty answer.

    `encoded` holds the counts of the task by client; sets in brackets are held out and not counted.
    """
    trained = _trained(encoded)
    n, kept, cut = (sum(counts[name] for counts in trained) for name in ("examples", "kept", "truncated"))
    blank = sum(counts.get("empty_answers", 0) for counts in trained)
    return {"cut": cut / n, "dropped": (n - kept) / n, "blank": blank / n}


def cut_and_dropped(encoded: Mapping[str, Mapping[str, int]]) -> tuple[str, bool]:
    """Return what share of the training examples was cut or dropped, as a line, and whether it calls for a warning."""
    share, trained = lost_shares(encoded), _trained(encoded)
    line = (
        f"{sum(counts['examples'] for counts in trained):,} training examples of {len(trained)} "
        f"client{'s' * (len(trained) != 1)}: {share['cut']:.1%} cut at task.max_length, {share['dropped']:.1%} dropped "
        "because nothing in them is left to learn"
        + (f", {share['blank']:.1%} with an empty answer" if share["blank"] else "")
    )
    return line, max(share["cut"] + share["dropped"], share["blank"]) > _TOLERABLE


def _trained(encoded: Mapping[str, Mapping[str, int]]) -> list[Mapping[str, int]]:
    return [counts for name, counts in encoded.items() if not name.startswith("(")]
