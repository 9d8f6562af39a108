"""Share of answers whose last number equals the reference's last number, exactly.

Source: the usual reading of GSM8K (Cobbe et al., 2021, https://arxiv.org/abs/2110.14168), where a worked answer ends
with its result. Numbers are decimals: "1,000.50" is 1000.5, a minus sign counts unless it joins two numbers or words,
commas count only between groups of three. Exponents, fractions and units are not read.
"""

import re
from decimal import Decimal

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference

__all__ = ["NumericMatch", "last_number", "numbers"]

_NUMBER = re.compile(r"(?:(?<![\w)])[-\u2212]\$?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+")


@plugin("numeric_match")
class NumericMatch(OfReference):
    """1 if the last numbers are equal, else 0; an answer without a number is wrong."""

    def score(self, text: str, reference: str) -> float | None:
        """Return 0 or 1; None if the reference has no number."""
        wanted = last_number(reference)
        return None if wanted is None else float(last_number(text) == wanted)


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, None if there is none.

    >>> last_number("3 of 1,250 make -7.50."), last_number("none")
    (Decimal('-7.50'), None)
    """
    found = numbers(text)
    return found[-1] if found else None


def numbers(text: str) -> list[Decimal]:
    """Return the numbers of a text in their order."""
    plain = (found.replace(",", "").replace("$", "").replace("\u2212", "-") for found in _NUMBER.findall(text))
    return [Decimal(found) for found in plain]
