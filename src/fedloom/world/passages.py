"""Passages: raw, unstructured text of several templates, in paraphrase and with noise.

Public passages tell canon facts. Private ones are case notes and ledger notes of one client: they tell its private
facts between planted details (a person, a date, a record number). Where each detail stands is in the tags, so that
leakage can be measured exactly: `secret` is the record number, `spans` lists `kind:start:end` in characters.
"""

from collections.abc import Sequence
from random import Random

from fedloom.contracts.examples import Document
from fedloom.world import names, words
from fedloom.world.facts import Fact
from fedloom.world.wording import expand

__all__ = ["article", "note", "spans_of", "with_noise"]

_LINKS = ("", "", "", "also, ", "as the book says, ", "in short, ")
_TITLES = {"drug": ("about {x}.", "the drug {x}.", "{x}:"), "company": ("about {x}.", "the company {x}.", "{x}:")}
_NOTES = {
    "drug": (
        "case {r}, {d}. (patient|a person called) {p} came in. {f} {p} went home.",
        "{d}: saw {p}, record {r}. {f} (all went well|no questions).",
        "record {r}. name {p}. date {d}. notes: {f}",
        "(letter|note) about {p}, {r}, sent on {d}. {f} thank you.",
    ),
    "company": (
        "ledger {r}, {d}. (seller|buyer) {p}. {f} paid.",
        "{d}: met {p}, file {r}. {f} (all is signed|no questions).",
        "file {r}. name {p}. date {d}. notes: {f}",
        "(letter|note) from {p}, {r}, sent on {d}. {f} thank you.",
    ),
}


def _told(facts: Sequence[Fact], random: Random) -> str:
    lines = (expand(random.choice(fact.relation.statements), random) for fact in facts)
    return " ".join(
        random.choice(_LINKS) + line.format(x=fact.name, y=fact.answer) for line, fact in zip(lines, facts, strict=True)
    )


def article(facts: Sequence[Fact], random: Random) -> Document:
    """Return a short text about one name, from facts that all concern it."""
    first = facts[0]
    title = random.choice(_TITLES[first.relation.kind]).format(x=first.name)
    tags = {"domain": first.relation.domain, "task": "article", "part": first.part, "language": "plain"}
    return Document(f"{title} {_told(facts, random)}", tags | {"facts": " ".join(fact.id for fact in facts)})


def note(facts: Sequence[Fact], random: Random, *, client: str, noise_rate: float = 0.0) -> Document:
    """Return a private note that tells the facts between planted details."""
    kind = facts[0].relation.kind
    details = {
        "person": random.choice(names.pool("person", "private")),
        "record": str(random.randint(1000, 9999)),
        "date": f"{random.randint(1, 28)} {random.choice(words.MONTHS)}",
    }
    told = with_noise(_told(facts, random), random, noise_rate)
    template = random.choice(_NOTES[kind])
    text = expand(template, random).format(p=details["person"], r=details["record"], d=details["date"], f=told)
    tags = {"domain": facts[0].relation.domain, "task": "note", "part": "private", "client": client}
    tags |= {"language": "plain", "facts": " ".join(fact.id for fact in facts)}
    return Document(text, tags | details | {"secret": details["record"], "spans": spans_of(text, details)})


def spans_of(text: str, details: dict[str, str]) -> str:
    """Return where each detail stands in the text, as `kind:start:end` separated by spaces.

    >>> spans_of("case 4821 of zorana", {"record": "4821"})
    'record:5:9'
    """
    found: list[tuple[int, int, str]] = []
    for kind, value in details.items():
        start = text.find(value)
        while start >= 0:
            found.append((start, start + len(value), kind))
            start = text.find(value, start + 1)
    return " ".join(f"{kind}:{start}:{end}" for start, end, kind in sorted(found))


def with_noise(text: str, random: Random, rate: float) -> str:
    """Return the text with each word dropped or doubled at `rate`."""
    kept: list[str] = []
    for word in text.split(" "):
        kept.extend([word] if random.random() >= rate else random.choice(([], [word, word])))
    return " ".join(kept)
