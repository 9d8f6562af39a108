"""What stands behind the scores of a page: data, cost, privacy, what left the clients, what the runs ran on."""

import contextlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.base.errors import RunError
from fedloom.benchmark.page import logs
from fedloom.benchmark.page.words import plural, value
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.data.clients import lost_shares
from fedloom.results.answers import answers_of
from fedloom.results.outcome import Outcome
from fedloom.results.show import stages as shown
from fedloom.runs.accounts import largest_epsilon, spent_text

__all__ = ["answers", "costs", "data", "environment", "privacy", "stages"]

_SHOWN = 10
"""Questions whose answers are shown."""

Runs = Mapping[int, Outcome]
"""Of one data set and method, by seed."""

Row = Sequence[Any]
"""A row of a table, as its columns' filters take it."""


def _first(runs: Runs) -> Outcome:
    return next(iter(runs.values()))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def data(study: SuiteOutcome, folder: Path) -> Mapping[str, Any]:
    """Return each partition's sizes and facts, and its diversities where `fedloom data describe` has measured them."""
    first = {name: _first(runs) for name, _, runs in reversed(list(study.kinds()))}
    facts = {name: logs.facts(first[name]) for name in study.data if name in first}
    sizes = {name: sorted(counts) for name, (counts, _) in facts.items()}
    rows = [
        [name, len(of), sum(of), of[0], of[len(of) // 2], of[-1], gini, clients, tokens, *_lost(first[name])]
        for (name, of), (_, (gini, clients, tokens)) in zip(sizes.items(), facts.values(), strict=True)
    ]
    diversities = {name: _diversities(name, Path(first[name].path), folder) for name in sizes}
    return {"rows": rows, "sizes": sizes, "diversities": diversities}


def _lost(run: Outcome) -> list[str]:
    """Return what share of the training examples was cut, and dropped."""
    if not run.card.get("encoded"):
        return ["", ""]
    share = lost_shares(run.card["encoded"])
    return [f"{100 * share[name]:.1f} %" for name in ("cut", "dropped")]


def answers(study: SuiteOutcome) -> Mapping[str, Any]:
    """Return ten questions of each data set with every method's answer; none where texts are not kept."""
    told: dict[str, Any] = {}
    for name in study.data:
        runs = {method: _first(runs) for data, method, runs in study.kinds() if data == name}
        if any(_is_kept_close(run) for run in runs.values()):
            continue
        with contextlib.suppress(RunError):  # other tests, hashes for texts, or nothing that is asked
            told[name] = answers_of(runs, _SHOWN) if runs else []
    return {name: asked for name, asked in told.items() if any(any(one["answers"].values()) for one in asked)}


def _is_kept_close(run: Outcome) -> bool:
    """Return whether a run's texts are for its owner's eyes, as answers that may do harm are."""
    file = Path(run.path) / "results.jsonl"
    return file.is_file() and not file.stat().st_mode & 0o077


def _diversities(name: str, run: Path, folder: Path) -> Mapping[str, Any]:
    """Return the seven diversities of a data set, looked for beside its runs and in the page's folder."""
    places = [run, folder / name, run.parent, folder]
    path = next((place / "diversity.json" for place in places if (place / "diversity.json").is_file()), None)
    if path is None:
        return {"command": _command(name, run, folder), "from_root": folder.is_absolute()}
    try:
        axes = json.loads(path.read_text(encoding="utf-8"))["axes"]
        indices = [(axis, index) for axis in axes for index in axis["indices"]]
        strips = [_strip(axis, index) for axis, index in indices if index["clients"]]
        rows = [_diversity_row(axis, index) for axis, index in indices]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: is not what `fedloom data describe` wrote ({error}); measure again or remove it."
        ) from error
    rows += [[axis["title"], axis["why"], None, None, None, ""] for axis in axes if not axis["measured"]]
    return {"command": "", "rows": rows, "strips": strips}


def _command(name: str, run: Path, folder: Path) -> str:
    """Return the command that measures; DIR stands for a path from the root, which is the machine's and no reader's."""
    shown = Path("DIR") if folder.is_absolute() else folder
    inside = os.path.relpath(run.resolve(), folder.resolve())
    out = shown if inside == "." else shown / name
    return shlex.join(["fedloom", "data", "describe", str(shown / inside / "run.toml"), "--out", str(out)])


def _strip(axis: Mapping[str, Any], index: Mapping[str, Any]) -> tuple[str, list[float], float | None]:
    """Return the name of an index, its value for each client and what chance would give."""
    chance = None if index["chance"] is None else logs.number(index["chance"])
    return f"{axis['title']}: {index['label']}", list(map(logs.number, index["clients"].values())), chance


def _diversity_row(axis: Mapping[str, Any], index: Mapping[str, Any]) -> Row:
    unit = f" ({index['unit']})" if index["unit"] else ""
    furthest = ", ".join(f"{client} {value(logs.number(far))}" for client, far, _ in index["furthest"][:3])
    numbers = [one if one is None else logs.number(one) for one in (index["mean"], index["chance"], index["highest"])]
    return [axis["title"], f"{index['label']}{unit}", *numbers, furthest]


def costs(study: SuiteOutcome) -> list[Row]:
    """Return what a run of each kind cost, the mean over its seeds."""
    return [_cost(*kind) for kind in study.kinds()]


def _cost(name: str, method: str, runs: Runs) -> Row:
    tokens = [known for found in runs.values() if (known := logs.trained_tokens(found)) is not None]
    means = {what: _mean([found.cost[what] for found in runs.values()]) for what in _first(runs).cost}
    rest = (means[what] for what in ("upload_bytes", "download_bytes", "wall_s"))
    return [name, method, len(runs), means["rounds"], _mean(tokens), *rest]


def stages(study: SuiteOutcome) -> list[Row]:
    """Return what each stage of the first run of each kind made and dropped; nothing where no run has stages."""
    return [[method, name, stage, text] for name, method, runs in study.kinds() for stage, text in shown(_first(runs))]


def privacy(study: SuiteOutcome) -> Mapping[str, Any]:
    """Return what was spent of the clients' privacy, and all that left them in one run of each kind.

    Kinds that sent alike share a row.
    """
    senders: dict[logs.Sent, list[tuple[str, str]]] = {}
    for name, method, runs in study.kinds():
        for one in logs.sent(_first(runs)):
            senders.setdefault(one, []).append((name, method))
    without = [(name, method) for name, method, runs in study.kinds() if not _first(runs).privacy]
    return {
        "spent": [_spent(*kind) for kind in study.kinds() if _first(kind[2]).privacy],
        "without": _named(without) if without else "",
        "pooled": any(_first(runs).pooled for _, _, runs in study.kinds()),
        "sent": [[one.what, one.times, one.clients, one.size_bytes, _named(of)] for one, of in senders.items()],
    }


def _named(kinds: Sequence[tuple[str, str]]) -> str:
    """Return which data sets and methods these are, in few words."""
    methods = list(dict.fromkeys(method for _, method in kinds))
    shown = ", ".join(methods[:4]) + (f" and {len(methods) - 4} more" if len(methods) > 4 else "")
    names = list(dict.fromkeys(name for name, _ in kinds))
    return f"{shown} on {names[0] if len(names) == 1 else plural(len(names), 'data set')}"


def _spent(name: str, method: str, runs: Runs) -> Row:
    """Return what the worst client of the worst run has spent."""
    worst = max((found.privacy for found in runs.values()), key=largest_epsilon)
    seeded = worst.get("settings", {}).get("noise") == "seeded"
    noise, epsilon = worst["smallest_noise_multiplier"], spent_text(worst).removeprefix("epsilon ")
    return [method, name, str(worst["unit"]), epsilon, f"{worst['delta']:.2g}", noise, worst.get("uses"), seeded]


def environment(study: SuiteOutcome) -> list[Row]:
    """Return what the runs ran on; each different value is told once."""
    told: dict[str, list[str]] = {}
    for found in study.cells.values():
        for name, text in logs.environment(found).items():
            if text and text not in told.setdefault(name, []):
                told[name].append(text)
    return [
        [name, "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")]
        for name, texts in told.items()
    ]
