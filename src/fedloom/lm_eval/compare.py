"""Two models over the same questions: differences in pairs, and whether they are shown to be more than chance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedloom.base.errors import MissingFileError, RunError
from fedloom.lm_eval.examine import read_items, read_result
from fedloom.lm_eval.scores import F1, Labels, f1_difference, in_words, mean_difference

__all__ = ["compare_results"]

Record = dict[str, Any]

_EQUAL = ("version", "definition", "shots", "data_sha256")  # where these differ, other questions were asked


def compare_results(one: Path, other: Path) -> list[Record]:
    """Return, for every task that both folders hold, the scores of `one` less those of `other`, item by item.

    A record has task, metric, filter, both values, the difference with its 95 % interval, and a verdict, which is
    "better" or "worse" only where the interval leaves out 0. Raises MissingFileError without a common task, RunError if
    a task was asked differently.
    """
    names = [{file.parent.name for file in folder.glob("*/result.json")} for folder in (one, other)]
    common = sorted(names[0] & names[1])
    if not common:
        found = ", ".join(sorted(names[0] | names[1])) or "none"
        raise MissingFileError(
            f"{one} and {other}: no finished task in common (found {found}); run `fedloom evaluate tasks` for both."
        )
    return [record for name in common for record in _task(one / name, other / name)]


def _task(one: Path, other: Path) -> list[Record]:
    results, items = [read_result(folder) for folder in (one, other)], [_by_key(folder) for folder in (one, other)]
    differing = [key for key in _EQUAL if results[0].get(key) != results[1].get(key)]
    if differing or items[0].keys() != items[1].keys():
        raise RunError(
            f"{one} and {other}: asked differently ({', '.join(differing) or 'other questions'}); compare results of "
            "one task on the same data, with equal --limit and --shots."
        )
    labels = tuple(results[0].get("labels", ()))
    return [
        {"task": results[0]["task"], **record}
        for score in results[0]["scores"]
        if (record := _metric(score, items[0], items[1], labels))
    ]


def _by_key(folder: Path) -> dict[tuple[str, int, str, str], Record]:
    return {(item["task"], item["index"], item["filter"], item["document_sha256"]): item for item in read_items(folder)}


def _metric(
    score: Record, one: Mapping[Any, Record], other: Mapping[Any, Record], labels: tuple[str, ...]
) -> Record | None:
    """Return the difference of a metric; None where it has no interval, as it is no sum over items."""
    if score["low"] is None:
        return None
    name, chosen = score["metric"], score["filter"]
    keys = [key for key, item in one.items() if item["filter"] == chosen]
    if labels and name in F1:
        pair = [Labels.of([found[key] for key in keys], labels) for found in (one, other)]
        difference = f1_difference(pair[0], pair[1])[name]
    else:
        keys = [key for key in keys if name in one[key]["scores"]]
        values = [[found[key]["scores"][name] for key in keys] for found in (one, other)]
        difference = mean_difference(values[0], values[1])
    return {
        "metric": name,
        "filter": chosen,
        "value": score["value"],
        "difference": difference.value,
        **difference.record("low", "high", "n"),
        "verdict": in_words(difference, higher_is_better=score["higher_is_better"]),
    }
