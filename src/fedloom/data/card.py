"""The card of a partition: who holds how much of what, as a table for the run directory."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.contracts.examples import Example

__all__ = ["effective_number", "gini", "most_frequent_value", "partition_card"]

_MANY = 32  # a tag of more values is counted, not listed: it names records, not classes
_CLASSES = "language"  # a tag that names classes however many they are
_BINS = 10


def gini(sizes: Sequence[int]) -> float:
    """Return the Gini index of sizes that are not all zero: 0 if all are equal, 1 - 1/n if one holds everything.

    >>> gini([1, 1, 1]), gini([0, 0, 0, 4])
    (0.0, 0.75)
    """
    n, total = len(sizes), sum(sizes)
    ranked = sum(rank * size for rank, size in enumerate(sorted(sizes), start=1))
    return 2 * ranked / (n * total) - (n + 1) / n


def effective_number(sizes: Sequence[int]) -> float:
    """Return the effective number of clients, (sum n)^2 / sum n^2: n if all are equal, 1 if one holds everything.

    >>> effective_number([5, 5]), effective_number([10, 0])
    (2.0, 1.0)
    """
    return sum(sizes) ** 2 / sum(size * size for size in sizes)


def partition_card(examples: Sequence[Example], indices: Mapping[str, Sequence[int]], seed: int) -> dict[str, Any]:
    """Return the card of an assignment of examples to clients; it can be written as JSON.

    Keys: seed; n_examples (all given), n_assigned, n_left_out; n_clients; counts (examples by client); gini and
    effective_clients of the counts; sha256 of the assignment; tags, for each tag either its histogram over all
    assigned examples and by client, or, where these are many, the number of its values, with the most frequent one of
    each client only if the tag is the language or tells no more than the client's name; length_characters, a histogram
    between the deciles of all.
    """
    counts = {client: len(owned) for client, owned in indices.items()}
    assigned = sum(counts.values())
    return {
        "seed": seed,
        "n_examples": len(examples),
        "n_assigned": assigned,
        "n_left_out": len(examples) - assigned,
        "n_clients": len(counts),
        "gini": gini(list(counts.values())),
        "effective_clients": effective_number(list(counts.values())),
        "sha256": _digest(indices),
        "counts": counts,
        "tags": _tags(examples, indices),
        "length_characters": _lengths(examples, indices),
    }


def _digest(indices: Mapping[str, Sequence[int]]) -> str:
    text = json.dumps([[client, list(owned)] for client, owned in indices.items()])
    return hashlib.sha256(text.encode()).hexdigest()


def _tags(examples: Sequence[Example], indices: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    by_client: dict[str, dict[str, Counter[str]]] = {}
    for client, owned in indices.items():
        for index in owned:
            for tag, value in examples[index].tags.items():
                by_client.setdefault(tag, {}).setdefault(client, Counter())[value] += 1
    return {tag: _tag_table(tag, table) for tag, table in sorted(by_client.items())}


def _tag_table(tag: str, by_client: Mapping[str, Counter[str]]) -> dict[str, Any]:
    whole = sum(by_client.values(), Counter[str]())
    if len(whole) > _MANY:
        own_names = all(counter.keys() == {client} for client, counter in by_client.items())
        listed = own_names or tag == _CLASSES
        often = {client: most_frequent_value(counter) for client, counter in by_client.items()} if listed else {}
        return {"n_values": len(whole)} | ({"most_frequent": often} if listed else {})
    return {
        "n_values": len(whole),
        "all": dict(sorted(whole.items())),
        "by_client": {client: dict(sorted(counter.items())) for client, counter in by_client.items()},
    }


def most_frequent_value(counts: Mapping[str, int]) -> str:
    """Return the value that was counted most often, of equal ones the first in the alphabet."""
    return min(counts, key=lambda value: (-counts[value], value))


def _lengths(examples: Sequence[Example], indices: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    lengths = {client: [len(examples[index].text) for index in owned] for client, owned in indices.items()}
    ordered = sorted(value for values in lengths.values() for value in values)
    edges = sorted({ordered[(len(ordered) - 1) * k // _BINS] for k in range(_BINS + 1)})
    return {
        "edges": edges,
        "all": _histogram(ordered, edges),
        "by_client": {client: _histogram(values, edges) for client, values in lengths.items()},
    }


def _histogram(values: Sequence[int], edges: Sequence[int]) -> list[int]:
    """Return how many values lie in each (edge, next edge], the first bin with its lower edge; one bin for one edge."""
    counts = Counter(max(1, sum(edge < value for edge in edges)) for value in values)
    return [counts[bin] for bin in range(1, max(2, len(edges)))]
