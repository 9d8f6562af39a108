"""Exactly one instruction and one response, of lengths that can be learnt from, with nothing of the prompt in them."""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.plugin import AtLeast, Count, plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.text.words import words

__all__ = ["Form"]

_LEFT_OVER = ("<document", "</document")


@plugin("form")
class Form(Filter):
    """Drops what is no pair."""

    reasons: ClassVar[tuple[str, ...]] = ("no_pair", "instruction_length", "response_length", "fence_left")

    instruction_words: tuple[AtLeast, AtLeast] = (3, 512)
    """Fewest and most words of an instruction."""
    response_words: tuple[Count, Count] = (1, 1024)
    """Fewest and most words of a response; with 0 as the fewest an instruction may still wait for its response."""

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict for each candidate by itself."""
        return [Verdict(self._reason(one)) for one in candidates]

    def _reason(self, one: Candidate) -> str:
        if not one.instruction or not (one.response or self.response_words[0] == 0):
            return "no_pair"
        least, most = self.instruction_words
        if not least <= len(words(one.instruction)) <= most:
            return "instruction_length"
        least, most = self.response_words
        if not least <= len(words(one.response)) <= most:
            return "response_length"
        return "fence_left" if any(mark in one.instruction + one.response for mark in _LEFT_OVER) else ""
