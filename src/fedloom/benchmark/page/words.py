"""Numbers as readers want them: a few digits, a unit, and a word for what an interval decides."""

import math
import re
from typing import NamedTuple

from fedloom.benchmark.ranking import ALL
from fedloom.evaluation.statistics import Interval

__all__ = [
    "FILTERS",
    "NONE",
    "Decided",
    "bounds",
    "called",
    "capital",
    "count",
    "decided",
    "duration",
    "interval",
    "minus",
    "p",
    "place",
    "plural",
    "score_name",
    "signed",
    "size",
    "size_or_none",
    "spread",
    "tenths",
    "value",
]

FILTERS = [name for name in __all__ if name[0].islower()]
"""Those that the templates know by their names."""

NONE = "\N{EN DASH}"
"""Stands where there is no number."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def value(number: float | None) -> str:
    """Return a score: three decimals, fewer where it is large; a dash where there is none."""
    if number is None or not math.isfinite(number):
        return NONE
    return minus(f"{number:.3f}" if abs(number) < 100 else f"{number:.1f}")


def signed(number: float) -> str:
    """Return a difference with its sign."""
    return minus(f"{number:+.3f}")


def minus(text: str) -> str:
    """Return a text whose numbers and differences have the true sign for minus; hyphens of names stay."""
    return re.sub(r"(?<![^\s(\[])-(?=\d|\s)|(?<=\de)-(?=\d\d)", "\N{MINUS SIGN}", text)


def bounds(interval: Interval) -> str:
    """Return an interval's ends, or that there is none."""
    if not math.isfinite(interval.low):
        return "no interval"
    return f"{value(interval.low)} to {value(interval.high)}"


def count(number: float | None) -> str:
    """Return a whole number in groups of three."""
    return NONE if number is None else f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def tenths(number: float) -> str:
    """Return a number with one decimal."""
    return f"{number:.1f}"


def size(n_bytes: float) -> str:
    """Return an amount of data in a unit that leaves up to three digits before the point."""
    place = 0
    while n_bytes >= 1000 and place < len(_UNITS) - 1:
        n_bytes, place = n_bytes / 1000, place + 1
    return f"{n_bytes:.0f} B" if place == 0 else f"{n_bytes:.1f} {_UNITS[place]}"


def duration(wall_s: float) -> str:
    """Return a time in hours, minutes and seconds, the two largest that are not 0."""
    hours, rest = divmod(round(wall_s), 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{wall_s:.1f} s"


def plural(number: int, one: str) -> str:
    """Return a count with its noun."""
    return f"{count(number)} {one}{'' if number == 1 else 's'}"


def capital(text: str) -> str:
    """Return a text that begins a sentence."""
    return text[:1].upper() + text[1:]


def score_name(name: str) -> str:
    """Return the name of a score as words."""
    return name.replace("_", " ")


def place(number: float) -> str:
    """Return a place of a ranking; ties share a half, a bound has none."""
    return NONE if math.isnan(number) else f"{number:.1f}".removesuffix(".0")


def called(text: str) -> str:
    """Return a text with the readers' words for the mean of the data sets."""
    return text.replace(ALL, "mean of data sets")


def interval(found: Interval | None) -> str:
    """Return a value with its interval's ends; a dash where there is none."""
    return f"{value(found.value)} ({bounds(found)})" if found else NONE


def spread(found: Interval) -> str:
    """Return a value with half the width of its interval."""
    return f"{value(found.value)} ± {value((found.high - found.low) / 2)}"


def p(number: float) -> str:
    """Return a p; a dash where nothing was tested."""
    return NONE if math.isnan(number) else f"{number:.4f}"


def size_or_none(n_bytes: float) -> str:
    """Return an amount of data; a dash where it is not told."""
    return size(n_bytes) if n_bytes else NONE


class Decided(NamedTuple):
    """The words for what is decided, not by colour alone."""

    text: str
    tone: str = "open"
    mark: str = ""


def decided(verdict: str) -> Decided:
    """Return the words for what a difference, or a claim, is: better, worse, holds, does not hold, or undecided."""
    if verdict in ("better", "holds"):
        return Decided(f"▲ {verdict}", "good", "▲ ")
    if verdict in ("worse", "does not hold"):
        return Decided(f"▼ {verdict}", "bad", "▼ ")
    return Decided("not decided")
