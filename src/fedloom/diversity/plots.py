"""One plot per axis of diversity, as SVG text, from the aggregates that the clients sent."""

import io
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.extras import require
from fedloom.contracts.diversity import Aggregate, Diversity

__all__ = ["plot"]

_SHOWN = 9  # categories with a colour of their own
_LEVELS = (0.1, 0.5, 0.9)


def plot(axis: Diversity, sent: Mapping[str, Aggregate]) -> str:
    """Return the plot of an axis; a missing matplotlib raises ConfigError."""
    require("plots of --out", "matplotlib")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    draw = {"sizes": _sizes, "categories": _shares, "numbers": _bands, "features": _map}[axis.kind]
    tables = {"sizes": ["records"], "features": [axis.title]}.get(axis.kind) or _tables(sent)
    # Text stays text, and equal data give equal bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedloom", "font.size": 9}):
        figure = Figure(figsize=(4.5 * len(tables) + 0.5, 3.0), layout="constrained")
        panels = figure.subplots(1, len(tables), squeeze=False)[0]
        for panel, table in zip(panels, tables, strict=True):
            draw(panel, sent, table)
            panel.spines[["top", "right"]].set_visible(False)
            panel.locator_params(axis="x", integer=axis.kind != "features", nbins=6)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _tables(sent: Mapping[str, Aggregate]) -> list[str]:
    """Return the tables that at least one client filled."""
    return list(dict.fromkeys(table for aggregate in sent.values() for table, bins in aggregate.items() if bins))


def _sizes(panel: Any, sent: Mapping[str, Aggregate], table: str) -> None:
    sizes = sorted((aggregate[table]["all"] for aggregate in sent.values()), reverse=True)
    panel.fill_between(range(len(sizes) + 1), [*sizes, sizes[-1]], step="post", linewidth=0)
    panel.axhline(float(np.mean(sizes)), color="black", linestyle="--", linewidth=0.8, label="mean")
    panel.set(xlabel="clients, the largest first", ylabel=table, xlim=(0, len(sizes)), ylim=(0, None))
    panel.legend(frameon=False)


def _shares(panel: Any, sent: Mapping[str, Aggregate], table: str) -> None:
    """Draw each client as a bar of its shares; bins that begin alike up to ` #` are one category."""
    counts = [_grouped(aggregate[table]) for aggregate in sent.values() if any(aggregate.get(table, {}).values())]
    common = [name for name, _ in sum(counts, Counter[str]()).most_common(_SHOWN)]
    rows = [
        [*(found[name] for name in common), found.total() - sum(found[name] for name in common)] for found in counts
    ]
    shares_KC = np.array(rows, dtype=np.float64)
    shares_KC /= shares_KC.sum(axis=1, keepdims=True)
    order = sorted(range(len(rows)), key=lambda row: (int(shares_KC[row].argmax()), -float(shares_KC[row].max())))
    shares_KC = np.concatenate([shares_KC[order], shares_KC[order[-1:]]])
    labels = [*common, *(["others"] if shares_KC[:, -1].any() else [])]
    drawn_KC = shares_KC[:, : len(labels)]
    colours = [*(f"C{place}" for place in range(len(common))), "0.8"][: len(labels)]
    panel.stackplot(range(len(drawn_KC)), drawn_KC.T, labels=labels, step="post", colors=colours)
    panel.set(xlabel="clients, by their largest share", ylabel=f"share: {table}", xlim=(0, len(order)), ylim=(0, 1))
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)


def _grouped(bins: Mapping[str, float]) -> Counter[str]:
    grouped: Counter[str] = Counter()
    for name, count in bins.items():
        grouped[name.partition(" #")[0]] += int(count)
    return grouped


def _bands(panel: Any, sent: Mapping[str, Aggregate], table: str) -> None:
    """Draw each client's median and the range from a tenth to nine tenths of its records, by median."""
    levels = np.array([_quantiles(bins) for bins in (one.get(table, {}) for one in sent.values()) if bins])
    levels = levels[np.lexsort((levels[:, 2], levels[:, 1]))]
    steps = np.concatenate([levels, levels[-1:]])
    places = range(len(steps))
    panel.fill_between(places, steps[:, 0], steps[:, 2], step="post", alpha=0.3, linewidth=0, label="10 % to 90 %")
    panel.step(places, steps[:, 1], where="post", linewidth=1.2, label="median")
    if steps[:, 2].max() > 100:  # long texts, not ratios
        panel.set_yscale("symlog")
    panel.set(xlabel="clients, by median", ylabel=table, xlim=(0, len(levels)))
    panel.legend(frameon=False)


def _quantiles(bins: Mapping[str, float]) -> list[float]:
    ordered = sorted((float(place), count) for place, count in bins.items())
    below = np.cumsum([count for _, count in ordered])
    return [ordered[int(np.searchsorted(below, level * below[-1]))][0] for level in _LEVELS]


def _map(panel: Any, sent: Mapping[str, Aggregate], table: str) -> None:
    """Draw the clients' means in the plane that their distances from the pool fill most (principal components)."""
    told = [aggregate for aggregate in sent.values() if aggregate["records"]]
    sizes_K = np.array([aggregate["records"]["all"] for aggregate in told])
    sums_KF = np.array([list(aggregate["features"].values()) for aggregate in told])
    away_KF = sums_KF / sizes_K[:, None] - sums_KF.sum(axis=0) / sizes_K.sum()
    left_KK, scale_K, _ = np.linalg.svd(away_KF, full_matrices=False)
    plane_K2: NDArray[np.float64] = (left_KK * scale_K)[:, :2]
    plane_K2 = np.pad(plane_K2, ((0, 0), (0, 2 - plane_K2.shape[1])))
    explained = 100 * (scale_K**2)[:2].sum() / max(float((scale_K**2).sum()), 1e-30)
    panel.scatter(*plane_K2.T, s=12 + 60 * sizes_K / sizes_K.max(), alpha=0.6, linewidth=0, label="clients, by size")
    panel.plot(0, 0, "k+", markersize=9, label="pool")
    panel.set(xlabel=f"first component ({explained:.0f} % with the second)", ylabel="second component", title=table)
    panel.legend(frameon=False)
