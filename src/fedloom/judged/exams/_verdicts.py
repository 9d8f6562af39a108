"""What a judge's text says: a grade or a word in square brackets, or nothing that counts.

A grade is read only where nothing else can be meant: two different ones say nothing, and single brackets, which texts
use for citations and code as well, count alone on a line or behind "Grade:", "Rating:" or "Score:". FastChat
(https://github.com/lm-sys/FastChat, `llm_judge/common.py`) takes the first brackets of either kind. Of words the last
one is taken, for judges are asked to explain first.
"""

import re
from collections.abc import Collection, Mapping

from fedloom.base.mean import Mean
from fedloom.judged.exams import UNPARSED

__all__ = ["choice", "counted", "grade", "graded", "unparsed"]

_DOUBLE = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")
_SINGLE = re.compile(
    r"""
    (?: \b(?:grade|rating|score)\b [ \t*_]* : [ \t*_]* | ^[ \t*_]* (?=\[[^\[\]\n]*\][ \t*_.]*\r?$) )
    \[ [ \t]* (\d+(?:\.\d+)?) [ \t]* \]
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_WORD = re.compile(r"\[\[\s*(\w+)\s*\]\]")


def grade(text: str) -> float | None:
    """Return the one grade from 1 to 10 in double brackets, else the one in single brackets; None without such.

    >>> grade("It helps. Grade: [[7]]"), grade("Grade: [7.5]"), grade("A [[12]]."), grade("[[8]] of [[10]]")
    (7.0, 7.5, None, None)
    """
    found = {float(number) for number in _DOUBLE.findall(text) or _SINGLE.findall(text)}
    value = found.pop() if len(found) == 1 else 0.0
    return value if 1 <= value <= 10 else None


def choice(text: str, allowed: Collection[str]) -> str | None:
    """Return the last word in double brackets, in lower case, if it is one of the allowed ones.

    >>> choice("Both are fine. [[C]]", ("a", "b", "c")), choice("[[both]]", ("a", "b", "c"))
    ('c', None)
    """
    found = _WORD.findall(text)
    word = found[-1].casefold() if found else ""
    return word if word in allowed else None


def counted(value: float | None) -> Mean:
    """Return a value as a score of weight 1; weight 0 if there is none."""
    return Mean() if value is None else Mean(value, 1.0)


def unparsed(*values: object) -> Mean:
    """Return how many of the values read from verdicts are None, over their number."""
    return Mean(float(sum(value is None for value in values)), float(len(values)))


def graded(verdicts: Mapping[str, str], name: str) -> dict[str, Mean]:
    """Return the grade of the verdict of that name as a score of that name, beside `unparsed`."""
    found = grade(verdicts[name])
    return {name: counted(found), UNPARSED: unparsed(found)}
