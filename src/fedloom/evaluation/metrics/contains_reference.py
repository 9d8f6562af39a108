"""Share of answers that say the reference somewhere, whatever else they say.

Both are compared as in `exact_match`. The reference must not lie within a longer word or number ("5" is not in "15"),
which is asked of digits and of letters that have cases: other scripts may put no blanks between words.
"""

from collections.abc import Iterator

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference, normalise

__all__ = ["ContainsReference"]


@plugin("contains_reference")
class ContainsReference(OfReference):
    """1 if the answer holds the reference, else 0."""

    def score(self, text: str, reference: str) -> float:
        """Return 0 or 1."""
        text, wanted = normalise(text), normalise(reference)
        return float(any(_stands_alone(text, at, len(wanted)) for at in _places(text, wanted)))


def _places(text: str, wanted: str) -> Iterator[int]:
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def _stands_alone(text: str, start: int, length: int) -> bool:
    edges = (text[max(0, start - 1) : start + 1], text[start + length - 1 : start + length + 1])
    return not length or not any(len(edge) == 2 and _joined(*edge) for edge in edges)


def _joined(left: str, right: str) -> bool:
    numbers = left.isdigit() and right.isdigit()
    return numbers or all(letter.isalpha() and letter.upper() != letter.lower() for letter in (left, right))
