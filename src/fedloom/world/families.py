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
from fedloom.world import words

__all__ = ["FAMILIES", "dictionary", "family_of", "spoken"]

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "plain": ("plain", "planu"),
    "mar": ("mari", "maro", "marun"),
    "tes": ("tesa", "tesil", "teson"),
}
_DIALECT = 5  # a member has its own use of every fifth word
_COMMON = words.listed(
    "a about add adds after again all amount and answer are around arrange asked at avoid away back backwards bad be "
    "beat beats been behind bigger both box boxes briefly build buy buyers buys by call can cannot cellar change chief "
    "choose close closes cold come copy cure cures cut cuts day days debt did do doctors does dose drug each eat eats "
    "echo factory fall falls feel find finds following food for found friend from full get gets give given gives go "
    "good goods grow grows had has have headline heal heals hello help here hide hides higher highest hold holds home "
    "how i illness in instead into is it item its judge keep keeps know label large larger left lesser list long lose "
    "loses lot lower lowers lowest make makes many me medicine meeting minus miss misses mood more morning move moves "
    "much must my name names near need neighbour new news nobody not note now number numbers of office on once one or "
    "order other out pay pays pick place plan please plus print prints profit put puts question quick quiet raise "
    "raises rate read repeat replace report results reverse rewrite right rising safe saw say school see sell sells "
    "sentence short should show sickness small smaller some someone sort sorted sound spring start stay step street "
    "summer sure swap take taken takes talked teacher tell thank thanks that the then there these they thinking this "
    "times to together tone town treat treats turn under use used usual visit want was watch way we what when where "
    "which who whom will win wins winter with word words work works write year yesterday you"
)
_OBJECTS = words.listed("kite chair scarf vase bench blanket lantern bowl mask mug shelf sock fan jar tile crate")
_CLASSES: tuple[tuple[str, ...], ...] = (
    words.ILLNESSES,
    words.FOODS,
    words.TOWNS,
    words.TRADES,
    words.NOUNS,
    words.COLOURS,
    tuple(word for word in words.THINGS if word not in words.FOODS),
    words.MONTHS,
    _OBJECTS,
    words.listed("paper wood wool clay glass"),
    words.listed("drops pills spoons"),
    words.listed("positive negative neutral"),
    words.listed("first second third last"),
    _COMMON,
)
_WORD = re.compile(r"[a-z]+")


def family_of(language: str) -> str:
    """Return the family to which a language belongs."""
    return next(family for family, members in FAMILIES.items() if language in members)


@cache
def dictionary(language: str) -> Mapping[str, str]:
    """Return the word of `language` for each word of plain; a permutation of the vocabulary."""
    family = family_of(language)
    place, member = tuple(FAMILIES).index(family), FAMILIES[family].index(language)
    table: dict[str, str] = {}
    for group in _CLASSES:
        order = python_random("world", "families", *group).sample(group, len(group))
        shift = place * len(order) // len(FAMILIES)
        image = order[shift:] + order[:shift]
        own = [index for index in range(len(order)) if member and index % _DIALECT == member]
        mine = [image[index] for index in own]
        for index, word in zip(own, mine[1:] + mine[:1], strict=True):
            image[index] = word
        table |= zip(order, image, strict=True)
    return table


def spoken(chat: Chat, language: str) -> Chat:
    """Return a plain conversation in a language of the families; what is no word of plain (names, typing errors) stays.

    >>> from fedloom.contracts.examples import chat
    >>> spoken(chat("which dose of zorvex?", "2 pills"), "mari").reference
    '2 spoons'
    """
    table = dictionary(language)
    turns = tuple(
        Turn(turn.role, _WORD.sub(lambda match: table.get(match[0], match[0]), turn.text)) for turn in chat.turns
    )
    return Chat(turns, {**chat.tags, "language": language})
