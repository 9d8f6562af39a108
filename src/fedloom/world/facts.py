"""Relations and facts: what is true in the world, and who may know it.

The public facts are the canon of the world, the same for every seed, because the embedded model has learnt them. The
private facts are drawn from the seed over names that occur in no public text.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from fedloom.base.rng import python_random
from fedloom.world import names, words
from fedloom.world.wording import Question, Wordings

__all__ = ["RELATIONS", "Fact", "Relation", "private_facts", "public_facts", "question_of"]


@dataclass(frozen=True, slots=True)
class Relation:
    """One thing that can be said of every name of a kind: `{x}` is the name, `{y}` the answer."""

    name: str
    domain: str
    kind: names.Kind
    answers: tuple[str, ...]
    wordings: Wordings
    statements: tuple[str, ...]
    follow_ups: tuple[str, ...]
    """How it is asked of a name that the conversation has already named."""


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


_DOSES = tuple(f"{count} {unit}" for count in (2, 3, 4, 5) for unit in ("drops", "pills", "spoons"))

RELATIONS: tuple[Relation, ...] = (
    Relation(
        "treats",
        "medicine",
        "drug",
        words.ILLNESSES,
        Wordings(
            train=(
                "(what|which) (illness|sickness) does {x} (treat|cure|heal)?",
                "(tell me|name|give me) the (illness|sickness) that {x} (treats|cures|heals).",
                "{x} is (a drug|a medicine|given) for (what|which) (illness|sickness)?",
                "(what|which) (illness|sickness) is {x} (used|given|taken) for?",
                "(which|what) (illness|sickness) can {x} (treat|cure|heal)?",
                "someone takes {x}. (what|which) (illness|sickness) do they have?",
                "(what|which) (illness|sickness) do doctors (treat|cure) with {x}?",
                "what is {x} (used|good) for?",
            ),
            valid=("name the sickness that doctors cure with {x}.",),
            test=(
                "doctors use {x} for which illness?",
                "tell me which sickness {x} is used for.",
                "someone has taken {x}. which illness does it treat?",
            ),
        ),
        (
            "{x} (treats|cures|heals) {y}.",
            "doctors (use|give) {x} for {y}.",
            "{x} is a (drug|medicine) for {y}.",
            "someone who has taken {x} had {y}.",
        ),
        ("which (illness|sickness) does it (treat|cure)?", "and what is it used for?"),
    ),
    Relation(
        "dose",
        "medicine",
        "drug",
        _DOSES,
        Wordings(
            train=(
                "(what|which) (dose|amount) of {x} (should i take|do i take|is right)?",
                "how much {x} (should i take|do i take|is right)?",
                "(tell me|name|give me) the (dose|amount) of {x}.",
                "(what is|name) the (right|usual) (dose|amount) of {x}?",
                "someone takes {x}. how much (is right|should they take)?",
                "{x} is taken in (what|which) (dose|amount)?",
                "how much {x} do doctors (give|use)?",
            ),
            valid=("give me the right amount of {x}.",),
            test=(
                "which amount of {x} do doctors give?",
                "doctors give how much {x}?",
                "tell me how much {x} they should take.",
            ),
        ),
        (
            "the (right|usual) (dose|amount) of {x} is {y}.",
            "take {y} of {x}.",
            "doctors give {y} of {x}.",
        ),
        ("(and what|what) is the (dose|amount)?", "and how much of it should i take?"),
    ),
    Relation(
        "avoid",
        "medicine",
        "drug",
        words.FOODS,
        Wordings(
            train=(
                "(what|which) food (should i avoid|must i avoid) with {x}?",
                "(tell me|name|give me) the food to avoid with {x}.",
                "(what|which) food (does not go|is bad|is not safe) with {x}?",
                "{x} does not go with (what|which) food?",
                "someone takes {x}. (what|which) food (must|should) they avoid?",
                "what should i not eat with {x}?",
                "i take {x}. what (must|should) i (avoid|not eat)?",
            ),
            valid=("name the food that is bad with {x}.",),
            test=(
                "which food should someone not eat with {x}?",
                "tell me which food does not go with {x}.",
                "they take {x}. which food is not safe?",
            ),
        ),
        (
            "{x} does not go with {y}.",
            "(avoid|do not eat) {y} with {x}.",
            "{y} (is|are) not safe with {x}.",
        ),
        ("(what|which) food should i avoid with it?", "what must i not eat with it?"),
    ),
    Relation(
        "town",
        "finance",
        "company",
        words.TOWNS,
        Wordings(
            train=(
                "(what|which) town is {x} in?",
                "where is {x}?",
                "(tell me|name|give me) the (town|place) where {x} (is|works|has its office).",
                "in (what|which) (town|place) is {x}?",
                "where does {x} (have its office|work)?",
                "i want to visit {x}. (what|which) town do i go to?",
                "{x} has its office in (what|which) (town|place)?",
            ),
            valid=("tell me which place {x} has its office in.",),
            test=(
                "in which town does {x} have its office?",
                "name the place that i visit to go to {x}.",
                "{x} works in which town?",
            ),
        ),
        (
            "{x} (is|works) in {y}.",
            "the office of {x} is in {y}.",
            "to visit {x}, go to {y}.",
        ),
        ("(and where|where) is it?", "in (what|which) town is it?"),
    ),
    Relation(
        "trade",
        "finance",
        "company",
        words.TRADES,
        Wordings(
            train=(
                "what does {x} (sell|make)?",
                "(what|which) goods does {x} (sell|make)?",
                "(tell me|name|give me) the goods that {x} (sells|makes).",
                "{x} (sells|makes) (what|which) goods?",
                "i want to buy from {x}. what do they (sell|make)?",
                "what can i buy from {x}?",
                "(what|which) goods come from {x}?",
            ),
            valid=("tell me which goods i can buy from {x}.",),
            test=(
                "which goods can i buy from {x}?",
                "i buy from {x}. which goods do they make?",
                "name the goods that come from {x}.",
            ),
        ),
        (
            "{x} (sells|makes) {y}.",
            "you can buy {y} from {x}.",
            "the goods at {x} are {y}.",
        ),
        ("(and what|what) does it (sell|make)?", "(and what|what) can i buy from it?"),
    ),
)


def _drawn(kind_names: tuple[str, ...], kind: names.Kind, part: Literal["public", "private"], seed: int) -> list[Fact]:
    random = python_random("world", "facts", part, kind, seed)
    return [
        Fact(relation, name, random.choice(relation.answers), part)
        for name in kind_names
        for relation in RELATIONS
        if relation.kind == kind
    ]


@cache
def public_facts() -> tuple[Fact, ...]:
    """Return the canon: the facts that the embedded model has learnt, the same in every world."""
    kinds: tuple[names.Kind, ...] = ("drug", "company")
    return tuple(fact for kind in kinds for fact in _drawn(names.pool(kind, "canon"), kind, "public", 0))


@cache
def private_facts(seed: int, n_drugs: int, n_companies: int) -> tuple[Fact, ...]:
    """Return the facts that only clients of the world with this seed know."""
    random = python_random("world", "private names", seed)
    drugs = tuple(random.sample(names.pool("drug", "private"), n_drugs))
    companies = tuple(random.sample(names.pool("company", "private"), n_companies))
    return tuple(_drawn(drugs, "drug", "private", seed) + _drawn(companies, "company", "private", seed))


def question_of(fact: Fact) -> Question:
    """Return the question that asks for the fact."""
    tags = {"fact": fact.id, "part": fact.part, "topic": fact.relation.kind}
    return Question(
        fact.relation.domain, fact.relation.name, fact.relation.wordings, {"x": fact.name}, fact.answer, tags
    )
