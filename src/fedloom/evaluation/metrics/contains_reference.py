"""Share of answers that say the reference somewhere, whatever else they say.

Both are compared as in `exact_match`. The reference must not lie within a longer word or number ("5" is not in "15"),
which is asked of digits and of letters that have cases: other scripts may put no blanks between words.
"""

import re

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference, normalise

__all__ = ["ContainsReference"]


@plugin("contains_reference")
class ContainsReference(OfReference):
    """1 if the answer holds the reference, else 0."""

    def score(self, text: str, reference: str) -> float:
        """Return 0 or 1."""
        text, wanted = normalise(text), normalise(reference)
        places = re.finditer(f"(?={re.escape(wanted)})", text)  # looking ahead, as places may overlap
        return float(any(_stands_alone(text, place.start(), len(wanted)) for place in places))


def _stands_alone(text: str, start: int, length: int) -> bool:
    edges = (text[max(0, start - 1) : start + 1], text[start + length - 1 : start + length + 1])
    return not length or not any(len(edge) == 2 and _joined(*edge) for edge in edges)


def _joined(left: str, right: str) -> bool:
    numbers = left.isdigit() and right.isdigit()
    return numbers or all(letter.isalpha() and letter.upper() != letter.lower() for letter in (left, right))
