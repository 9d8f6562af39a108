"""Eight languages in three families: related word maps, for federations over similar and over all languages.

Every language says the same things with the same words, but the words mean other things: `mari` for `illness` is a
word that plain uses for something else. A family is one such map; its further members agree with it on four words in
five and have swapped the others among themselves. So, by construction,

- members of a family teach each other: what one client has learnt of a word or of a fact holds for four fifths of the
  vocabulary of the first member, and for three fifths between two others;
- families contradict each other: fewer than one word in fifty of the closed vocabulary means the same in languages of
  two of them, names and numbers apart, and so the same question about the same name nearly always has another answer.
  A model of all families must tell them apart
  before it can use any of them, and a mean over all clients gives each family a share of every step only.

Words map to words that the tokenizer knows, within classes (illnesses to illnesses, small words to small words), so
that a question costs no more tokens than in plain and has as many possible answers. The older `languages` differ:
their words are strings that the model has never read.
"""

import re
from collections.abc import Mapping
from functools import cache

from fedloom.base.rng import python_random
from fedloom.contracts.examples import Chat, Turn
from fedloom.world.words import WORDS, table

__all__ = ["FAMILIES", "dictionary", "family_of", "spoken"]

FAMILIES: Mapping[str, tuple[str, ...]] = table("words")["families"]
_DIALECT = 5  # a member has its own use of every fifth word
_WORD = re.compile(r"[a-z]+")


def family_of(language: str) -> str:
    """Return the family to which a language belongs."""
    return next(family for family, members in FAMILIES.items() if language in members)


@cache
def dictionary(language: str) -> Mapping[str, str]:
    """Return the word of `language` for each word of plain; a permutation of the vocabulary."""
    family = family_of(language)
    place, member = tuple(FAMILIES).index(family), FAMILIES[family].index(language)
    meanings: dict[str, str] = {}
    for name in table("words")["classes"]:
        group = [word for word in WORDS[name] if word not in meanings]
        order = python_random("world", "families", *group).sample(group, len(group))
        shift = place * len(order) // len(FAMILIES)
        image = order[shift:] + order[:shift]
        own = [index for index in range(len(order)) if member and index % _DIALECT == member]
        mine = [image[index] for index in own]
        for index, word in zip(own, mine[1:] + mine[:1], strict=True):
            image[index] = word
        meanings |= zip(order, image, strict=True)
    return meanings


def spoken(chat: Chat, language: str) -> Chat:
    """Return a plain conversation in a language of the families; what is no word of plain (names, typing errors) stays.

    >>> from fedloom.contracts.examples import chat
    >>> spoken(chat("which dose of zorvex?", "2 pills"), "mari").reference
    '2 drops'
    """
    meanings = dictionary(language)
    turns = tuple(
        Turn(turn.role, _WORD.sub(lambda match: meanings.get(match[0], match[0]), turn.text)) for turn in chat.turns
    )
    return Chat(turns, {**chat.tags, "language": language})
