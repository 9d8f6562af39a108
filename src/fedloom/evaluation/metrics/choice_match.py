"""Share of answers that choose the letter that the reference chooses, A to J.

A letter is read where an answer declares one: after "answer is" or "answer:", the last time this occurs; else as the
whole answer; else at the start, in brackets or followed by a mark or the end of the line ("(B)", "B.", "B) four").
"A man walked in" chooses nothing. What chooses nothing is wrong.
"""

import re

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference

__all__ = ["ChoiceMatch", "chosen_letter"]

_DECLARED = re.compile(
    r"(?i:\banswer(?:\s+is)?)\s*:?\s*\**\s*(?:\(([A-Ja-j])\)|([A-J])(?![\w'])|([a-j])(?=[\s*]*(?:[.,;:)\n]|$)))"
)
_AT_START = re.compile(r"[\s*\"']*(?:[(\[]([A-J])[)\]]|([A-J])(?:[).:,*]|\s*(?:\n|$)))")
_WHOLE = re.compile(r"[\s(\"']*([a-jA-J])[\s).\"']*")


@plugin("choice_match")
class ChoiceMatch(OfReference):
    """1 if both choose the same letter, else 0."""

    def score(self, text: str, reference: str) -> float | None:
        """Return 0 or 1; None if the reference chooses no letter."""
        wanted = chosen_letter(reference)
        return None if wanted is None else float(chosen_letter(text) == wanted)


def chosen_letter(text: str) -> str | None:
    """Return the letter that an answer chooses, None if it chooses none.

    >>> chosen_letter("The answer is (C)."), chosen_letter("B) four"), chosen_letter("A man walked in.")
    ('C', 'B', None)
    """
    found = [*_DECLARED.finditer(text)][-1:] or [
        match for match in (_WHOLE.fullmatch(text), _AT_START.match(text)) if match
    ]
    return next((letter.upper() for letter in found[0].groups() if letter), None) if found else None
