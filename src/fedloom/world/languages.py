"""Three further languages: systematic, invertible word maps of plain text.

- `ruvo`: every word is mapped, the order of words stays;
- `selan`: shares the small words (what, is, the, ...) and the order with plain, maps the others and adds an ending;
- `todim`: the vocabulary of ruvo in the opposite order of words within each sentence.

So ruvo and todim share words, ruvo and selan share order. Invented names and numbers are the same in all. The public
text holds none of them: they occur in clients' data only.
"""

import re

from fedloom.contracts.examples import Chat, Turn
from fedloom.world.names import every_name
from fedloom.world.words import listed

__all__ = ["LANGUAGES", "plain_text", "translate", "translated"]

LANGUAGES = ("plain", "ruvo", "selan", "todim")

_PLAIN = "bcdfghjklmnpqrstvwxzaeiouy"
_MAPPED = "dfgjklmnprstvbzqxwchiouyea"
_TO = str.maketrans(_PLAIN, _MAPPED)
_FROM = str.maketrans(_MAPPED, _PLAIN)
_SMALL = frozenset(
    listed(
        "a an the is are was of in on to for from with by and or not no do does did has have had what which who how it "
        "its this that there then i you me my we they he she"
    )
)
_ENDING = "ek"
_WORD = re.compile(r"[a-z]+")
_TOKEN = re.compile(r"[a-z0-9]+")
_SENTENCE = re.compile(r"[^.?!:]+")


def _forth(word: str, language: str) -> str:
    if word in every_name():
        return word
    if language == "selan":
        return word if word in _SMALL else word.translate(_TO) + _ENDING
    return word.translate(_TO)


def _back(word: str, language: str) -> str:
    if word in every_name():
        return word
    if language == "selan":
        return word if word in _SMALL else word.removesuffix(_ENDING).translate(_FROM)
    return word.translate(_FROM)


def _turned(sentence: str) -> str:
    words = iter(reversed(_TOKEN.findall(sentence)))
    return _TOKEN.sub(lambda _: next(words), sentence)


def translate(text: str, language: str) -> str:
    """Return plain text in `language`.

    >>> translate("what does zorvex treat?", "selan")
    'what does zorvex qbuiqek?'
    """
    if language == "plain":
        return text
    mapped = _WORD.sub(lambda match: _forth(match[0], language), text)
    return _SENTENCE.sub(lambda match: _turned(match[0]), mapped) if language == "todim" else mapped


def plain_text(text: str, language: str) -> str:
    """Return the plain text of which `text` is the translation."""
    if language == "plain":
        return text
    ordered = _SENTENCE.sub(lambda match: _turned(match[0]), text) if language == "todim" else text
    return _WORD.sub(lambda match: _back(match[0], language), ordered)


def translated(chat: Chat, language: str) -> Chat:
    """Return the conversation with every turn in `language`."""
    turns = tuple(Turn(turn.role, translate(turn.text, language)) for turn in chat.turns)
    return Chat(turns, {**chat.tags, "language": language})
