"""Asking a model all tasks of a list: checked before the first question, written task by task, resumable.

OUT/evaluation.json         what was asked of whom: model hashes, template, limit, shots, versions
OUT/<task>/result.json      the scores with errors and intervals, task version, hash of the data
OUT/<task>/items.jsonl      one line per question (and filter): right answer, given answer, scores
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base import config
from fedloom.base.errors import ConfigError, RunError
from fedloom.base.files import atomic_folder, disk_errors, file_name, json_sha256, refuse_filled, write_atomic
from fedloom.evaluation.statistics import Interval
from fedloom.lm_eval.code_execution import run_program
from fedloom.lm_eval.harness import (
    Loaded,
    check_name,
    hub_tasks,
    lm_eval_version,
    local_tasks,
    own_harness_task,
    quiet,
    set_shots,
)
from fedloom.lm_eval.language_model import Scorer, harness_model, is_cut
from fedloom.lm_eval.libraries import libraries
from fedloom.lm_eval.local_data import required_data
from fedloom.lm_eval.scores import SCORE, Labels, f1_scores, mean_score
from fedloom.lm_eval.shipped import HARNESS, own_task, own_tasks
from fedloom.lm_eval.task_file import TaskFile, read_task_file, the_label

__all__ = ["Wanted", "examine", "read_items", "read_result"]

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be asked."""

    tasks: tuple[str, ...]
    """Names of ours or of lm-eval's, or paths of task files."""
    data_dir: Path | None = None
    limit: int | None = None
    """Questions of each task, and of each member of a group, from the first on; None for all."""
    shots: int | None = None
    """Solved questions before each; None as the task says."""
    allow_code: bool = False


@dataclass(frozen=True)
class _Ready:
    """A task that was found, with its data."""

    name: str
    loaded: Loaded
    file: TaskFile | None
    shots: int
    data_sha256: str
    """"" for data from the hub."""

    def facts(self) -> Record:
        """Return what a finished result has to agree with."""
        file = f"task file sha256:{json_sha256(config.table_of(self.file))}" if self.file else ""
        return {
            "task": self.name,
            "version": self.loaded.version,
            "definition": file or "lm-eval",
            "shots": self.shots,
            "data_sha256": self.data_sha256,
        }


def examine(scorer: Scorer, wanted: Wanted, out: Path, *, report: Callable[[Record], None]) -> list[Record]:
    """Return the results of all tasks in their order, and hand each to `report` as it is there.

    Tasks that `out` holds already are not asked again. Raises ConfigError, MissingFileError or DataError before the
    model is asked anything if a task, its data or a right to run programs is missing; RunError if `out` holds the
    results of another model, other data or other settings.
    """
    header = _header(scorer, wanted)
    _check_header(out, header)
    ready = [_prepare(name, wanted, out, chat=scorer.template is not None) for name in wanted.tasks]
    names = [task.name for task in ready]
    twins = [name for name in names if names.count(name) > 1]
    if twins:
        raise ConfigError(f"task '{twins[0]}' was named twice; name each once.")
    if any(task.file and task.file.kind == "code" for task in ready):
        _check_code(wanted)
    done = {task.name: _finished(out, task) for task in ready}
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "evaluation.json", json.dumps(header, indent=2) + "\n")
    results: list[Record] = []
    for task in ready:
        result = done[task.name] or _ask(scorer, task, wanted, out)
        report(result)
        results.append(result)
    return results


def _header(scorer: Scorer, wanted: Wanted) -> Record:
    hasher = hashlib.sha256()
    for name, tensor in sorted(scorer.params.items()):
        hasher.update(f"{name} {tuple(tensor.shape)} ".encode())
        hasher.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    template = scorer.template
    return {
        "base": scorer.model.base_id,
        "trained_sha256": hasher.hexdigest(),
        "template": config.table_of(template) if template else None,
        "context_tokens": scorer.context,
        "limit": wanted.limit,
        "lm_eval": lm_eval_version(),
    }


def _check_header(out: Path, header: Record) -> None:
    file = out / "evaluation.json"
    if not file.is_file():
        refuse_filled(out, "give a new folder, or one of `fedloom evaluate tasks`")
        return
    keys = config.differing_keys(_json(file), header)
    if keys:
        raise RunError(f"{out}: holds results that differ in {', '.join(keys)}; choose another --out.")


# ----------------------------------------------------------------------------------------------------- finding a task


def _prepare(name: str, wanted: Wanted, out: Path, *, chat: bool) -> _Ready:
    """Return the task of a name or of a path, ready to be asked."""
    if name in own_tasks() or Path(name).suffix in (".toml", ".yaml", ".yml"):
        file = own_task(name) if name in own_tasks() else read_task_file(Path(name))
        data = required_data(wanted.data_dir, file.name, file.columns, file.source or "the task's rows")
        loaded = own_harness_task(file, data, chat=chat)
        return _Ready(file.name, loaded, file, set_shots(loaded, wanted.shots, file.name), data.sha256)
    known = HARNESS.get(name)
    if wanted.data_dir is None:
        loaded, sha256 = hub_tasks(name, known, out / "cache"), ""
    else:
        check_name(name)  # before a file of that name is missed
        columns, source = (known.columns, known.source) if known else ((), "the rows of the split that lm-eval asks")
        data = required_data(wanted.data_dir, name, columns, source)
        loaded, sha256 = local_tasks(name, data, known), data.sha256
    return _Ready(name, loaded, None, set_shots(loaded, wanted.shots, name), sha256)


def _check_code(wanted: Wanted) -> None:
    if not wanted.allow_code:
        raise ConfigError(
            "a task runs programs that the model writes; allowed with --allow-code, which runs them confined (see "
            "docs/closed_ended.md), or leave the task out."
        )
    if run_program("") != "passed":
        raise ConfigError(
            f"--allow-code: an empty program does not run confined by {sys.executable}; allowed is an interpreter that "
            "lies beneath /usr or its own prefix: install it so, or leave the code tasks out."
        )


# ------------------------------------------------------------------------------------------------------ asking a task


def _finished(out: Path, task: _Ready) -> Record | None:
    file = out / file_name(task.name) / "result.json"
    if not file.is_file():
        return None
    result = _json(file)
    differing = [key for key, value in task.facts().items() if result.get(key) != value]
    if differing:
        raise RunError(f"{file}: is of another {', '.join(differing)}; choose another --out, or remove its folder.")
    return result


def _ask(scorer: Scorer, task: _Ready, wanted: Wanted, out: Path) -> Record:
    import lm_eval.evaluator

    evaluate: Any = lm_eval.evaluator.evaluate  # what it takes and gives are tables of anything
    harness = harness_model(scorer)
    with quiet(), libraries(task.name):
        answered = evaluate(
            lm=harness,
            task_dict={"tasks": task.loaded.tasks, "groups": {}, "group_map": {}},
            limit=wanted.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=scorer.template is not None,
            fewshot_as_multiturn=scorer.template is not None,
        )
    items = list(_items(answered["samples"], task.file))
    asked = {(leaf, one["doc_id"]): one["arguments"] for leaf, found in answered["samples"].items() for one in found}
    cut = [any(is_cut(scorer, harness, request) for request in requests) for requests in asked.values()]
    result = task.facts() | {
        "n": len(asked),
        "contexts_cut": sum(cut),
        "labels": list(task.file.labels) if task.file else [],
        "scores": _scores(items, task, answered["results"]),
    }
    with atomic_folder(out / file_name(task.name)) as folder:
        lines = "".join(json.dumps(item, ensure_ascii=False, default=str) + "\n" for item in items)
        (folder / "items.jsonl").write_text(lines, encoding="utf-8", errors="backslashreplace")
        (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _items(samples: Mapping[str, Sequence[Record]], file: TaskFile | None) -> Iterator[Record]:
    """Give a line per question and filter."""
    for leaf, answered in samples.items():
        for one in answered:
            values = {name: one[name] for name in one["metrics"]}
            item: Record = {
                "task": leaf,
                "index": one["doc_id"],
                "filter": one["filter"],
                "right": one["target"],
                "answer": one["filtered_resps"],
                "scores": {name: float(value) for name, value in values.items() if isinstance(value, int | float)},
                "document_sha256": one["doc_hash"],
            }
            if file and file.kind == "label":
                item["label"] = the_label(one["filtered_resps"][0], file.labels)
            yield item


def _scores(items: Sequence[Record], task: _Ready, results: Mapping[str, Mapping[str, Any]]) -> list[Record]:
    """Return every metric under every filter; means with intervals, other figures as lm-eval gives them, by member."""
    better = {name: value for one in task.loaded.tasks.values() for name, value in one.higher_is_better().items()}
    scores: list[Record] = []
    for metric, chosen in _means(items, task).items():
        name, chosen_filter = metric
        head = {"metric": name, "filter": chosen_filter, "higher_is_better": better.get(name)}
        scores.append(head | mean_score(chosen).record(*SCORE))
    if task.file and task.file.kind == "label":
        for name, score in f1_scores(Labels.of(items, task.file.labels)).items():
            scores.append({"metric": name, "filter": "none", "higher_is_better": True} | score.record(*SCORE))
    done = {(score["metric"], score["filter"]) for score in scores}
    for leaf, figures in results.items():
        for key, value in figures.items():
            name, _, chosen_filter = key.partition(",")
            if chosen_filter and "_stderr" not in name and (name, chosen_filter) not in done:
                alone = Interval(float(value), math.nan, math.nan, figures.get("sample_len", 0))
                head = {"metric": name, "filter": chosen_filter, "higher_is_better": better.get(name), "member": leaf}
                scores.append(head | alone.record(*SCORE))
    return scores


def _means(items: Sequence[Record], task: _Ready) -> dict[tuple[str, str], list[float]]:
    """Return the items' values of the metrics that are means over items."""
    from lm_eval.api.metrics import mean

    plain = {leaf: one.aggregation() for leaf, one in task.loaded.tasks.items()}
    values: dict[tuple[str, str], list[float]] = {}
    for item in items:
        for name, value in item["scores"].items():
            if plain[item["task"]].get(name, mean) is mean:
                values.setdefault((name, item["filter"]), []).append(value)
    return values


# ------------------------------------------------------------------------------------------------------------ reading


def _json(file: Path) -> Record:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file}: is no JSON ({error}); remove it, and its task is asked again.") from error
    if not isinstance(record, dict):
        raise RunError(f"{file}: is no record; remove it, and its task is asked again.")
    return record


def read_result(folder: Path) -> Record:
    """Return a task's result from its folder."""
    return _json(folder / "result.json")


def read_items(folder: Path) -> list[Record]:
    """Return a task's items from its folder; a damaged line is refused."""
    file = folder / "items.jsonl"
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: cannot be read ({error}); remove the folder, and the task is asked again.") from error
