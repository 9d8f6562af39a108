"""Conversations of several turns: separate questions in a row, or follow-ups that lean on what was said before."""

from collections.abc import Sequence
from random import Random

from fedloom.contracts.examples import Chat, Turn
from fedloom.world.facts import Fact, question_of
from fedloom.world.wording import Split, expand, phrase
from fedloom.world.words import PHRASES

__all__ = ["follow_ups", "joined", "leaning", "with_system"]


def joined(chats: Sequence[Chat], **tags: str) -> Chat:
    """Return one conversation of the given ones in a row; tags of the last, then `tags`."""
    turns = tuple(turn for chat in chats for turn in chat.turns)
    return Chat(turns, {**chats[-1].tags, "turns": str(len(chats)), **tags})


def leaning(fact: Fact, random: Random) -> tuple[Turn, Turn]:
    """Return a question about a name that the conversation has already named, and its answer."""
    return Turn("user", expand(random.choice(fact.relation.follow_ups), random)), Turn("assistant", fact.answer)


def follow_ups(facts: Sequence[Fact], random: Random, *, split: Split) -> Chat:
    """Return a conversation about one name: it is named in the first question and only meant in the later ones."""
    first = phrase(question_of(facts[0]), random, split=split)
    turns = list(first.turns)
    for fact in facts[1:]:
        turns += leaning(fact, random)
    tags = {**first.tags, "task": "follow_up", "fact": facts[-1].id, "turns": str(len(facts))}
    return Chat(tuple(turns), tags)


def with_system(chat: Chat, random: Random) -> Chat:
    """Return the conversation with a system turn before it."""
    return Chat((Turn("system", random.choice(PHRASES["system"])), *chat.turns), chat.tags)
