"""Passages: raw, unstructured text of several templates, in paraphrase and with noise.

Public passages tell canon facts. Private ones are case notes and ledger notes of one client: they tell its private
facts between planted details (a person, a date, a record number). Where each detail stands is in the tags, so that
leakage can be measured exactly: `secret` is the record number, `spans` lists `kind:start:end` in characters.
"""

import re
from collections.abc import Sequence
from random import Random

from fedloom.contracts.examples import Document
from fedloom.world.facts import Fact
from fedloom.world.names import pool
from fedloom.world.wording import expand
from fedloom.world.words import PHRASES, WORDS

__all__ = ["article", "note", "spans_of", "with_noise"]


def _told(facts: Sequence[Fact], random: Random) -> str:
    told: list[str] = []
    for fact in facts:
        line = fact.relation.told(fact.name, fact.answer, random)  # drawn before what stands before it
        told.append(random.choice(PHRASES["links"]) + line)
    return " ".join(told)


def article(facts: Sequence[Fact], random: Random) -> Document:
    """Return a short text about one name, from facts that all concern it."""
    first = facts[0]
    title = random.choice(PHRASES["titles"][first.relation.kind]).format(x=first.name)
    tags = {"domain": first.relation.domain, "task": "article", "part": first.part, "language": "plain"}
    return Document(f"{title} {_told(facts, random)}", tags | {"facts": " ".join(fact.id for fact in facts)})


def note(facts: Sequence[Fact], random: Random, *, client: str, noise_rate: float = 0.0) -> Document:
    """Return a private note that tells the facts between planted details."""
    details = {
        "person": random.choice(pool("person", "private")),
        "record": str(random.randint(1000, 9999)),
        "date": f"{random.randint(1, 28)} {random.choice(WORDS['months'])}",
    }
    told = with_noise(_told(facts, random), random, noise_rate)
    template = expand(random.choice(PHRASES["notes"][facts[0].relation.kind]), random)
    text = template.format(facts=told, **details)
    tags = {"domain": facts[0].relation.domain, "task": "note", "part": "private", "client": client}
    tags |= {"language": "plain", "facts": " ".join(fact.id for fact in facts)}
    return Document(text, tags | details | {"secret": details["record"], "spans": spans_of(text, details)})


def spans_of(text: str, details: dict[str, str]) -> str:
    """Return where each detail stands in the text, as `kind:start:end` separated by spaces.

    >>> spans_of("case 4821 of zorana", {"record": "4821"})
    'record:5:9'
    """
    found = [
        (match.start(), match.start() + len(value), kind)
        for kind, value in details.items()
        for match in re.finditer(f"(?={re.escape(value)})", text)
    ]
    return " ".join(f"{kind}:{start}:{end}" for start, end, kind in sorted(found))


def with_noise(text: str, random: Random, rate: float) -> str:
    """Return the text with each word dropped or doubled at `rate`."""
    kept: list[str] = []
    for word in text.split(" "):
        kept.extend([word] if random.random() >= rate else random.choice(([], [word, word])))
    return " ".join(kept)
