"""Which languages a text may be in: real ones by the library `langdetect`, those of the controlled world by a rule.

The rule of the world. Names and numbers belong to all its languages; of the other words each language knows some:
`plain` those of the public text, `ruvo` and `todim` their translations, `selan` the small plain words and the other
translations with its ending. A text is in the language that knows most of its words, if that is more than half of
them. `ruvo` and `todim` share words and differ in order: a text is in the one in whose order more of its pairs of
neighbouring words stand in the public text. Where nothing tells them apart, as in one word, a text is in both.
"""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from fedloom.base.config import read_toml
from fedloom.base.extras import library
from fedloom.base.rng import seed_of
from fedloom.contracts.examples import Document
from fedloom.world import World
from fedloom.world.languages import LANGUAGES, plain_text, translate
from fedloom.world.names import every_name

__all__ = ["code_of", "languages_of", "worlds_languages_of"]

_CODES = read_toml(Path(__file__).with_name("languages.toml"))
_PUBLIC = 2000  # public examples, in which every word of the world's wordings occurs


def code_of(language: str) -> str | None:
    """Return the code of a language named as data sets do, None for one that the library does not know.

    >>> code_of("Standard_Arabic"), code_of("zh-cn"), code_of("Latin")
    ('ar', 'zh', None)
    """
    known = _CODES | {code: code for code in _CODES.values()}
    parts = re.split(r"[\W_]+", language.casefold())
    return next((known[part] for part in (parts[0], parts[-1]) if part in known), None)


def languages_of(text: str) -> frozenset[str]:
    """Return the code of the likeliest real language of a text; none if it has no letters."""
    detector = _factory().create()
    detector.append(text)
    try:
        return frozenset((str(detector.detect()).split("-")[0],))
    except library("langdetect").LangDetectException:
        return frozenset()


@cache
def _factory() -> Any:
    """Return the library's profiles with a seed of their own: by itself it draws anew for each text."""
    found = library("langdetect.detector_factory")
    factory = found.DetectorFactory()
    factory.load_profile(found.PROFILES_DIRECTORY)
    factory.set_seed(seed_of("langdetect"))
    return factory


def worlds_languages_of(text: str) -> frozenset[str]:
    """Return the languages of the controlled world that a text may be in; none if no word tells."""
    said = [word for word in re.findall("[a-z]+", text.casefold()) if word not in every_name()]
    counts = {language: sum(word in known for word in said) for language, known in _vocabularies().items()}
    most = max(counts.values())
    if not said or 2 * most <= len(said):
        return frozenset()
    found = {language for language, count in counts.items() if count == most}
    return frozenset(found - {_excluded_by_order(text)} if {"ruvo", "todim"} <= found else found)


@cache
def _public_sentences() -> tuple[tuple[str, ...], ...]:
    public = World().pretraining(_PUBLIC)
    texts = [(one.text,) if isinstance(one, Document) else [turn.text for turn in one.turns] for one in public]
    return tuple(sentence for parts in texts for text in parts for sentence in _sentences(text))


def _sentences(text: str) -> list[tuple[str, ...]]:
    """Return the sentences of a text, each a tuple of words in which all names and numbers are one and the same."""
    cut = [re.findall("[a-z]+|[0-9]+", sentence) for sentence in re.split("[.?!:]", text)]
    return [tuple("" if word in every_name() or word.isdigit() else word for word in words) for words in cut]


@cache
def _vocabularies() -> dict[str, frozenset[str]]:
    plain = {word for sentence in _public_sentences() for word in sentence if word}
    return {language: frozenset(translate(word, language) for word in plain) for language in LANGUAGES}


@cache
def _public_pairs() -> frozenset[tuple[str, str]]:
    return frozenset(pair for sentence in _public_sentences() for pair in pairwise(sentence))


def _excluded_by_order(text: str) -> str:
    """Return which of ruvo and todim the order of words speaks against, "" if it speaks against neither."""
    known = _public_pairs()
    pairs = [pair for sentence in _sentences(plain_text(text.casefold(), "ruvo")) for pair in pairwise(sentence)]
    forth, back = sum(pair in known for pair in pairs), sum(pair[::-1] in known for pair in pairs)
    return "" if forth == back else "todim" if forth > back else "ruvo"
