"""Documents in pieces that a prompt has room for: they cover all of a document, with some words in common."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Passage", "divided", "halves", "unreadable"]

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\ufffd]")
_FEWEST = 32  # words of a passage that is not divided further


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, with where it begins and ends in it, in characters."""

    document: int
    start: int
    stop: int
    text: str

    @property
    def id(self) -> str:
        """What the passage is called in records."""
        return f"{self.document}:{self.start}-{self.stop}"


def unreadable(text: str) -> str:
    """Return why a text is no document: it is empty, or holds signs that no text has; "" for a document."""
    if not text.strip():
        return "empty_document"
    return "binary_document" if _CONTROL.search(text) else ""


def divided(passage: Passage, *, most: int, shared: int) -> list[Passage]:
    """Return passages of at most `most` words that cover this one, neighbours having `shared` words in common."""
    return list(_divided(passage, most, shared))


def halves(passage: Passage) -> list[Passage]:
    """Return a passage in two; an empty list where it is too short to be divided."""
    n_words = len(passage.text.split())
    if n_words < 2 * _FEWEST:
        return []
    shared = n_words // 16
    return list(_divided(passage, (n_words + shared + 1) // 2, shared))


def _divided(passage: Passage, most: int, shared: int) -> Iterator[Passage]:
    spans = [found.span() for found in re.finditer(r"\S+", passage.text)]
    if len(spans) <= most:
        yield passage
        return
    first = 0
    while True:
        last = min(first + most, len(spans))
        start = spans[first][0] if first else 0
        stop = spans[last - 1][1] if last < len(spans) else len(passage.text)
        text = passage.text[start:stop]
        yield Passage(passage.document, passage.start + start, passage.start + stop, text)
        if last == len(spans):
            return
        first = last - shared
