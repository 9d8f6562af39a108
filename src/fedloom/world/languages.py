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
from fedloom.world.words import WORDS

__all__ = ["LANGUAGES", "plain_text", "translate", "translated"]

LANGUAGES = ("plain", "ruvo", "selan", "todim")

_PLAIN = "bcdfghjklmnpqrstvwxzaeiouy"
_MAPPED = "dfgjklmnprstvbzqxwchiouyea"
_TO = str.maketrans(_PLAIN, _MAPPED)
_FROM = str.maketrans(_MAPPED, _PLAIN)
_SMALL = frozenset(WORDS["small"])
_ENDING = "ek"
_WORD = re.compile(r"[a-z]+")
_TOKEN = re.compile(r"[a-z0-9]+")
_SENTENCE = re.compile(r"[^.?!:]+")


def _is_kept(word: str, language: str) -> bool:
    return word in every_name() or (language == "selan" and word in _SMALL)


def _forth(word: str, language: str) -> str:
    return word if _is_kept(word, language) else word.translate(_TO) + _ENDING * (language == "selan")


def _back(word: str, language: str) -> str:
    bare = word.removesuffix(_ENDING) if language == "selan" else word
    return word if _is_kept(word, language) else bare.translate(_FROM)


def _turned(sentence: str) -> str:
    words = iter(reversed(_TOKEN.findall(sentence)))
    return _TOKEN.sub(lambda _: next(words), sentence)


def translate(text: str, language: str) -> str:
    """Return plain text in `language`.

    >>> translate("what does zorvex treat?", "selan")
    'what does zorvex qboiqek?'
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
