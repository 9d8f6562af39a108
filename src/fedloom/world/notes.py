"""Documents of made-up names with the pair that each holds: what synthesis is measured against.

A document is a sentence of one template between two of its domain's fillers, which change places with the sentence now
and then. A client writes about its own domain nine times of ten. The true pair of a document is known here and to
whoever measures; nothing of it is in the document's text or tags. `noise` is the share of a sentence's own words, names
and numbers apart, that are replaced by made-up ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from fedloom.base import rng
from fedloom.base.files import json_sha256
from fedloom.contracts.synthesis import PoolRow
from fedloom.world.words import table

__all__ = ["Notes", "notes"]

_HOME = 0.9
_SWAPPED = 0.3
_SLOTS = "abc"


@dataclass(frozen=True)
class Notes:
    """A public pool, and the documents of each client."""

    pool: tuple[PoolRow, ...]
    clients: dict[str, tuple[PoolRow, ...]]


def notes(seed: int, *, clients: int = 10, documents: int = 60, per_template: int = 2, noise: float = 0.0) -> Notes:
    """Return a pool with so many examples of each template, and so many documents of each client."""
    domains: Sequence[dict[str, Any]] = table("notes")["domains"]
    random = rng.python_random(seed, "notes", "pool")
    pool = tuple(
        _note(random, domain, template, 0.0)
        for domain in domains
        for template in domain["templates"]
        for _ in range(per_template)
    )
    owned: dict[str, tuple[PoolRow, ...]] = {}
    for number in range(clients):
        random = rng.python_random(seed, "notes", number)
        home = domains[number % len(domains)]
        chosen = [home if random.random() < _HOME else random.choice(domains) for _ in range(documents)]
        owned[f"c{number}"] = tuple(_note(random, one, random.choice(one["templates"]), noise) for one in chosen)
    return Notes(pool, owned)


def _note(random: Random, domain: dict[str, Any], template: dict[str, str], noise: float) -> PoolRow:
    names = dict(zip(_SLOTS, _unlike_words(random, len(_SLOTS)), strict=True))
    n, m = random.sample(range(3, 90), 2)
    values = {**names, "n": str(n), "m": str(m)}
    words = [word if "{" in word or random.random() >= noise else _word(random) for word in template["text"].split()]
    first, second = random.sample(domain["fillers"], 2)
    sentences = [first, " ".join(words).format_map(values), second]
    if random.random() < _SWAPPED:
        sentences[0], sentences[1] = sentences[1], sentences[0]
    answer = str(n + m) if template["answer"] == "+" else template["answer"].format_map(values)
    document = " ".join(sentences)
    return PoolRow(
        id=json_sha256(document)[:12],
        domain=domain["name"],
        document=document,
        instruction=template["question"].format_map(values),
        response=answer,
    )


def _unlike_words(random: Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[_word(random)] = None
    return list(found)


def _word(random: Random) -> str:
    """Return a made-up word of three syllables."""
    return "".join(random.choice("bdfgklmnprstvz") + random.choice("aeiou") for _ in range(3))
