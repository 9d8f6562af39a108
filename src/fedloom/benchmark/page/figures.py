"""The figures of a page: forest plot, curves with bands, client heat map, sizes of clients, strips of diversities."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup

from fedloom.benchmark.page.drawing import DASHES, GRID, INK, MARKERS, MUTED, PAPER, drawn, series, short
from fedloom.benchmark.page.words import minus
from fedloom.evaluation.statistics import Interval

__all__ = ["bands", "forest", "heat_map", "in_panels", "sizes", "strips"]

_WIDE = 9.2  # inches; the page is as wide
_NAMED = 40  # clients that a heat map has room to name

Value = TypeVar("Value")
Curves = Mapping[str, Sequence[Mapping[int, float]]]
"""By method, one curve per seed."""


def in_panels(figure: Any, panels: Mapping[str, Value]) -> Iterator[tuple[Any, str, Value]]:
    """Yield axes, name and content of each panel, two in a row, with its name above where there are several."""
    columns = min(2, len(panels))
    axes = figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False).ravel().tolist()
    for empty in axes[len(panels) :]:
        empty.set_axis_off()
    for panel, (title, content) in zip(axes, panels.items(), strict=False):
        yield panel, title, content
        if len(panels) > 1:
            panel.set_title(short(title, 40))


def forest(
    name: str,
    panels: Mapping[str, Sequence[tuple[str, Interval]]],
    *,
    best: Mapping[str, Collection[str]],
    axes: Mapping[str, str],
    reference: Mapping[str, float],
) -> Markup:
    """Return a point with its interval per method, the panels one per data set, with the names of their axes.

    A dashed line stands at `reference`, by panel; the `best` of each panel are drawn full, the others hollow.
    """
    rows = max(map(len, panels.values()))

    def draw(figure: Any) -> None:
        for panel, title, ranked in in_panels(figure, panels):
            if title in reference:
                panel.axvline(reference[title], color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
            for place, (method, interval) in enumerate(ranked):
                is_best = method in best[title]
                colour = series(0) if is_best else INK
                if math.isfinite(interval.low):
                    panel.plot([interval.low, interval.high], [place, place], color=colour, solid_capstyle="butt")
                face = colour if is_best else PAPER
                panel.plot([interval.value], [place], "o", color=colour, markerfacecolor=face, markersize=6)
            panel.set_yticks(range(len(ranked)), [short(method) for method, _ in ranked])
            panel.set_ylim(len(ranked) - 0.4, -0.6)
            panel.set_xlabel(axes[title])
            panel.grid(axis="y", visible=False)

    width = _WIDE if len(panels) > 1 else 7.2
    return drawn(name, width, (0.95 + 0.3 * rows) * math.ceil(len(panels) / 2), draw)


def bands(name: str, panels: Mapping[str, Curves], *, methods: Sequence[str], axis: str) -> Markup:
    """Return a line per method over rounds: the mean over its seeds, in a band from the lowest to the highest seed."""

    def draw(figure: Any) -> None:
        lines: dict[str, Any] = {}
        for panel, _, curves in in_panels(figure, panels):
            for method in [method for method in methods if curves.get(method)]:
                _band(panel, curves[method], methods.index(method), short(method))
            panel.set_xlabel("rounds done")
            panel.set_ylabel(axis)
            panel.xaxis.get_major_locator().set_params(integer=True)
            lines |= {line.get_label(): line for line in panel.get_lines()}
        if len(lines) > 1:
            figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, fontsize=9)

    keys = 0.26 * math.ceil(len(methods) / 4)
    width = _WIDE if len(panels) > 1 or len(methods) > 3 else 6.4
    return drawn(name, width, 2.9 * math.ceil(len(panels) / 2) + keys, draw)


def _band(panel: Any, seeds: Sequence[Mapping[int, float]], number: int, label: str) -> None:
    rounds = sorted(set[int]().union(*seeds))
    values = [[curve[place] for curve in seeds if place in curve] for place in rounds]
    colour = series(number)
    panel.plot(
        rounds,
        [sum(found) / len(found) for found in values],
        color=colour,
        linestyle=DASHES[number // 2 % len(DASHES)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=4,
        markevery=max(1, len(rounds) // 8),
        label=label,
    )
    if len(seeds) > 1:
        panel.fill_between(
            rounds, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15, linewidth=0
        )


def heat_map(name: str, table: Mapping[str, Mapping[str, float]], *, clients: Sequence[str], axis: str) -> Markup:
    """Return a row per method and a column per client, in the order given; what is not known stays empty."""
    values = np.array([[row.get(client, math.nan) for client in clients] for row in table.values()])

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        panel.grid(visible=False)
        known = values[~np.isnan(values)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        image = panel.imshow(
            values, cmap="cividis", aspect="auto", interpolation="none", vmin=low, vmax=high if high > low else low + 1
        )
        panel.set_yticks(range(len(table)), [short(method) for method in table])
        if len(clients) <= _NAMED:
            panel.set_xticks(range(len(clients)), [short(client, 12) for client in clients], rotation=90, fontsize=8)
        else:
            panel.set_xlabel(f"{len(clients)} clients, worst on the left")
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=panel, fraction=0.04, pad=0.015)
        bar.set_label(axis)
        bar.outline.set_visible(False)

    return drawn(name, _WIDE, 0.9 + 0.3 * len(table) + (0.5 if len(clients) <= _NAMED else 0), draw)


def sizes(name: str, panels: Mapping[str, Sequence[int]]) -> Markup:
    """Return a bar per client, the largest first: how many examples each one trains on."""

    def draw(figure: Any) -> None:
        for panel, _, counts in in_panels(figure, panels):
            ordered = sorted(counts, reverse=True)
            panel.fill_between(range(len(ordered) + 1), [*ordered, 0], step="post", color=series(0), linewidth=0)
            panel.set_ylim(0)
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.set_xlabel("clients, largest first")
            panel.set_ylabel("examples")
            panel.grid(axis="x", visible=False)

    return drawn(name, _WIDE if len(panels) > 1 else 6.4, 2.3 * math.ceil(len(panels) / 2), draw)


def strips(name: str, rows: Sequence[tuple[str, Sequence[float], float | None]]) -> Markup:
    """Return a strip per index: a stroke per client, a dot at their mean, a diamond at what chance would give.

    Each strip has a scale of its own from 0, as the indices have units of their own; its end is written beside it.
    """

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        for place, (_, values, chance) in enumerate(rows):
            furthest = max([*values, chance or 0.0])
            top = furthest or 1.0  # all clients are like the pool
            panel.plot([0, 1], [place, place], color=GRID, linewidth=1)
            panel.plot([value / top for value in values], [place] * len(values), "|", color=series(0), alpha=0.5, ms=11)
            panel.plot([sum(values) / len(values) / top], [place], "o", color=INK, ms=6)
            if chance is not None:
                panel.plot([chance / top], [place], "D", color=series(1), ms=5)
            panel.annotate(
                minus(f"{furthest:.3g}"),
                (1, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
            )
        panel.set_yticks(range(len(rows)), [short(label, 44) for label, _, _ in rows])
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_xticks([0], ["like the pool"])
        panel.grid(visible=False)
        panel.spines["bottom"].set_visible(False)
        panel.tick_params(length=0)

    return drawn(name, 7.6, 0.6 + 0.36 * len(rows), draw)
