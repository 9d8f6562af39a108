"""Drawing with matplotlib: figures as SVG that takes its colours from the page, the same bytes every time.

Nothing of the SVG is looked up elsewhere: texts stay texts, numbers of the drawing are salted by a constant, no date is
written. Colours are written as names of style variables, so that light, dark and print share one drawing.
"""

import io
import re
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fedloom.base.config import read_toml
from fedloom.base.extras import library
from fedloom.base.shown import shown

__all__ = ["DASHES", "GRID", "INK", "MARKERS", "MUTED", "PAPER", "drawn", "series", "short"]

# Colours that stand for style variables of the page, here and in `drawing.toml`; matplotlib knows no variables.
INK, MUTED, GRID, PAPER = "#000001", "#000002", "#000003", "#000004"
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"}
_PIXELS = 92  # of the page per inch, so that texts are a little smaller than the page's
_N_SERIES = 8  # colours that readers of all kinds tell apart; beyond them markers and dashes do
MARKERS = "osD^vPX*<>ph"
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_SETTINGS = read_toml(Path(__file__).with_name("drawing.toml"))


def series(number: int) -> str:
    """Return the colour of a series; they come again after eight."""
    return f"#0000{16 + number % _N_SERIES:02x}"


def short(text: str, longest: int = 26) -> str:
    """Return a text cut to fit a figure, without characters that no file of text may hold."""
    plain = shown(text)
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


@contextmanager
def _settings() -> Generator[None]:
    matplotlib = library("matplotlib", "the figures of the page")
    settings: Any = {**matplotlib.rcParamsDefault, **_SETTINGS, "backend": "svg"}  # whatever a user has set up
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The page's own fonts show what the one that measures texts here has no glyph for.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def drawn(name: str, width: float, height: float, draw: Callable[[Any], None]) -> Markup:
    """Return what `draw` draws on a figure of that size in inches, as an SVG element; `name` makes its ids its own."""
    with _settings():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    return Markup(_as_element(file.getvalue(), name, width))  # matplotlib escapes the texts it is given


def _as_element(document: str, name: str, width: float) -> str:
    """Return an SVG document as an element of a page: no head, no comments, ids and colours of its own."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
    head, _, rest = element.partition(">")
    head = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", head)
    head += f' style="--drawn: {width * _PIXELS:.0f}px" aria-hidden="true"'
    return re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], name), f"{head}>{rest}")  # texts have no such brackets


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", tag.replace("xlink:href=", "href="))
    for colour, variable in _NAMES.items():
        tag = tag.replace(colour, f"var(--{variable})")
    return re.sub(r"#0000(1[0-7])", lambda found: f"var(--series-{int(found[1], 16) - 16})", tag)
