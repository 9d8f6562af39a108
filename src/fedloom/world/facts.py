"""Relations and facts: what is true in the world, and who may know it.

The public facts are the canon of the world, the same for every seed, because the embedded model has learnt them. The
private facts are drawn from the seed over names that occur in no public text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from fedloom.base.rng import python_random
from fedloom.world.names import Kind, pool
from fedloom.world.wording import WORDINGS, Question, Wordings, expand
from fedloom.world.words import WORDS, table

__all__ = ["RELATIONS", "Fact", "Relation", "private_facts", "public_facts", "question_of"]


@dataclass(frozen=True, slots=True)
class Relation:
    """One thing that can be said of every name of a kind: `{x}` is the name, `{y}` the answer."""

    name: str
    domain: str
    kind: Kind
    answers: tuple[str, ...]
    wordings: Wordings
    statements: tuple[str, ...]
    follow_ups: tuple[str, ...]
    """How it is asked of a name that the conversation has already named."""

    def told(self, name: str, answer: str, random: Random) -> str:
        """Return one of the statements, about a name."""
        return expand(random.choice(self.statements), random).format(x=name, y=answer)


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact with its identity."""

    relation: Relation
    name: str
    answer: str
    part: Literal["public", "private"]

    @property
    def id(self) -> str:
        """Return the identity, as `treats:zorvex`."""
        return f"{self.relation.name}:{self.name}"


RELATIONS: tuple[Relation, ...] = tuple(
    Relation(name, **entry | {"answers": WORDS[entry["answers"]], "wordings": WORDINGS[name]})
    for name, entry in table("tasks")["relations"].items()
)


def _drawn(known: Sequence[str], kind: Kind, part: Literal["public", "private"], seed: int) -> tuple[Fact, ...]:
    random = python_random("world", "facts", part, kind, seed)
    relations = [relation for relation in RELATIONS if relation.kind == kind]
    return tuple(Fact(each, name, random.choice(each.answers), part) for name in known for each in relations)


@cache
def public_facts() -> tuple[Fact, ...]:
    """Return the canon: the facts that the embedded model has learnt, the same in every world."""
    drugs, companies = pool("drug", "canon"), pool("company", "canon")
    return _drawn(drugs, "drug", "public", 0) + _drawn(companies, "company", "public", 0)


@cache
def private_facts(seed: int, n_drugs: int, n_companies: int) -> tuple[Fact, ...]:
    """Return the facts that only clients of the world with this seed know."""
    random = python_random("world", "private names", seed)
    drugs = random.sample(pool("drug", "private"), n_drugs)
    companies = random.sample(pool("company", "private"), n_companies)
    return _drawn(drugs, "drug", "private", seed) + _drawn(companies, "company", "private", seed)


def question_of(fact: Fact) -> Question:
    """Return the question that asks for the fact."""
    relation = fact.relation
    tags = {"fact": fact.id, "part": fact.part, "topic": relation.kind}
    return Question(relation.domain, relation.name, relation.wordings, {"x": fact.name}, fact.answer, tags)
