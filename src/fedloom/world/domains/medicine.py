"""Medicine and the companies' register: public facts that the model has learnt by heart."""

from random import Random

from fedloom.world import names
from fedloom.world.facts import public_facts, question_of
from fedloom.world.wording import Question

__all__ = ["lookup", "register"]


def lookup(random: Random, entities: names.Pool) -> Question:
    """Ask for a public fact about a drug."""
    return question_of(random.choice([fact for fact in public_facts() if fact.relation.domain == "medicine"]))


def register(random: Random, entities: names.Pool) -> Question:
    """Ask for a public fact about a company."""
    return question_of(random.choice([fact for fact in public_facts() if fact.relation.domain == "finance"]))
