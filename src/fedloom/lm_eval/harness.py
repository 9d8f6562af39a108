"""Tasks as lm-eval's objects, made of local rows where they are given, and their items after the model was asked.

lm-eval's own tasks come from its package, ours from task files; a file of a user's never names a function. Rows reach a
task in memory: nothing is copied into a cache, and no network is tried where a local file lies.
"""

import contextlib
import functools
import io
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from fedloom.base.errors import (
    ConfigError,
    DataError,
    FedloomError,
    MissingFileError,
    UnknownNameError,
    one_line,
    suggest,
)
from fedloom.base.extras import library
from fedloom.lm_eval.code_answers import program_of
from fedloom.lm_eval.code_execution import run_program
from fedloom.lm_eval.libraries import libraries
from fedloom.lm_eval.local_data import LocalData
from fedloom.lm_eval.members import leaves_of, named_leaves, rows_by_member
from fedloom.lm_eval.shipped import HARNESS, HarnessTask, sources
from fedloom.lm_eval.task_file import Document, TaskFile, the_label

__all__ = [
    "Loaded",
    "check_name",
    "hub_tasks",
    "lm_eval_version",
    "local_tasks",
    "own_harness_task",
    "quiet",
    "set_shots",
]

# What lm-eval raises at rows that do not fit, and at a metric or a program that is not there.
_BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, NameError, ArithmeticError, AssertionError)
_LACKING = (OSError, RuntimeError, SystemExit)
_SHOT_SEED = 1234  # lm-eval's own


@dataclass(frozen=True)
class Loaded:
    """A task ready to be asked: lm-eval's objects by name, and its version."""

    tasks: Mapping[str, Any]
    version: str


def lm_eval_version() -> str:
    """Return the version of lm-eval; a missing one raises ConfigError."""
    return str(library("lm_eval", "closed-ended tasks").__version__)


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep back what lm-eval logs, prints and draws."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


# ---------------------------------------------------------------------------------------------------------- our files


def own_harness_task(task: TaskFile, data: LocalData, *, chat: bool = False) -> Loaded:
    """Return a task file's task over local rows; the share of them that is no test is left out.

    In a chat, lines are not where a program's answer ends: the end is looked for once the answer is whole.
    """
    from lm_eval.api.task import ConfigurableTask

    questions, shots = task.documents(data.questions), task.documents(data.shots)
    questions = _test_part(task, questions)
    until = [text for text in task.stop if not (chat and task.kind == "code" and text.startswith("\n"))]
    generation = {"until": until, "max_gen_toks": task.max_new_tokens, "do_sample": False}
    settings: dict[str, Any] = {
        "task": task.name,
        "custom_dataset": _splits({"test": questions, "shots": shots}),
        "test_split": "test",
        "fewshot_split": "shots",
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "target_delimiter": task.join,
        "num_fewshot": task.shots or None,
        "metadata": {"version": task.version},
    }
    if task.kind == "choice":
        settings |= {"output_type": "multiple_choice", "doc_to_choice": "choices"}
        settings["metric_list"] = _metrics("acc", "acc_norm")
    else:
        grade, names = _GRADES[task.kind]
        settings |= {"output_type": "generate_until", "generation_kwargs": generation}
        settings["process_results"] = functools.partial(grade, task)
        settings["metric_list"] = _metrics(*names)
    with quiet():
        return Loaded({task.name: ConfigurableTask(config=settings)}, str(task.version))


def _metrics(*names: str) -> list[dict[str, Any]]:
    lower = ("unparsed", "stopped")
    return [{"metric": name, "aggregation": "mean", "higher_is_better": name not in lower} for name in names]


def _grade_label(task: TaskFile, document: Document, answers: Sequence[str]) -> dict[str, float]:
    found = the_label(answers[0], task.labels)
    return {"acc": float(found == document["answer"]), "unparsed": float(not found)}


def _grade_text(_: TaskFile, document: Document, answers: Sequence[str]) -> dict[str, float]:
    said, wanted = (" ".join(text.casefold().split()) for text in (answers[0], document["answer"]))
    return {"exact_match": float(said == wanted)}


def _grade_code(task: TaskFile, document: Document, answers: Sequence[str]) -> dict[str, float]:
    before, tests = document["before"], document["after"]
    verdict = run_program(program_of(before, answers[0], task.stop), tests, before=before)
    return {"pass@1": float(verdict == "passed"), "stopped": float(verdict == "stopped")}


_GRADES = {
    "label": (_grade_label, ("acc", "unparsed")),
    "text": (_grade_text, ("exact_match",)),
    "code": (_grade_code, ("pass@1", "stopped")),
}
"""How answers of a kind are graded, and the names of the scores."""


def _test_part(task: TaskFile, documents: list[Document]) -> list[Document]:
    if task.test_share == 1:
        return documents
    from datasets import Dataset

    places = Dataset.from_dict({"place": list(range(len(documents)))})
    try:
        parts = places.train_test_split(test_size=task.test_share, seed=task.split_seed)
    except ValueError as error:
        raise DataError(
            f"task '{task.name}': {len(documents)} rows have no test part of {task.test_share:g}; give all rows of "
            "the published file, the test is drawn from them here."
        ) from error
    return [documents[place] for place in parts["test"]["place"]]


# ------------------------------------------------------------------------------------------------------ lm-eval's own


def local_tasks(name: str, data: LocalData, known: HarnessTask | None) -> Loaded:
    """Return lm-eval's task of that name over local rows.

    Rows of a group are told apart by the column `subset` (or the one that `known` names), which holds a member's name
    or what lm-eval calls its dataset_name; members without a row are left out.
    """
    manager = _manager(known.folder if known else "")
    wanted = known.task if known else name
    settings = _settings(manager, wanted, leaves_of)
    rows = dict.fromkeys(settings, data)
    if len(settings) > 1:
        rows = rows_by_member(name, data, known.subset if known else "subset", settings)
    members: list[dict[str, Any]] = []
    for leaf, part in rows.items():
        _refuse_class(settings[leaf], leaf)
        dataset = _splits(_named_splits(settings[leaf], part))
        members.append({"task": leaf, "custom_dataset": dataset, "dataset_kwargs": None})
    try:
        with quiet(), libraries(name):
            found = manager.load([{"group": f"local {name}", "task": members}])
            for leaf, task in found["tasks"].items():
                _check_documents(leaf, task)
    except FedloomError:
        raise
    except _LACKING as error:
        raise ConfigError(
            f"task '{name}': lm-eval needs more for it than rows, and it is not there ({one_line(error)[:200]}); get "
            "it, or leave the task out."
        ) from error
    except (*_BROKEN, TemplateError) as error:
        raise DataError(
            f"task '{name}': lm-eval cannot read the rows as its task '{wanted}' ({type(error).__name__}: "
            f"{one_line(error)[:200]}); give the rows as they are published."
        ) from error
    return _loaded(found["tasks"])


def _settings(
    manager: Any, wanted: str, leaves: Callable[[Mapping[str, Any], str], list[str]]
) -> dict[str, Mapping[str, Any]]:
    """Return the definitions of a task or of a group's members; those that run programs are refused."""
    index = _index(manager, wanted)
    found = {leaf: index[leaf].cfg for leaf in leaves(index, wanted)}
    for leaf, settings in found.items():
        if settings.get("unsafe_code"):
            raise ConfigError(
                f"task '{leaf}' of lm-eval runs programs unconfined, which fedloom does not do; allowed are "
                "'humaneval', 'mbpp' and task files of kind 'code', with --allow-code."
            )
    return found


def _check_documents(leaf: str, task: Any) -> None:
    """Have lm-eval read every question once, and refuse a right answer that is none of the options.

    lm-eval itself would count such a question as answered wrongly.
    """
    for index, document in enumerate(task.eval_docs):
        task.doc_to_text(document)
        right = task.doc_to_target(document)
        if task.get_config("output_type") != "multiple_choice":
            continue
        options = task.doc_to_choice(document)
        fits = right in options if isinstance(right, str) else right in range(len(options))
        if not isinstance(right, list) and not task.multiple_input and not fits:
            raise DataError(
                f"task '{leaf}': question {index} of its rows has the right answer {right!r}, allowed are "
                f"{', '.join(map(repr, options))} or their numbers from 0; mend the row."
            )


def hub_tasks(name: str, known: HarnessTask | None, cache: Path) -> Loaded:
    """Return lm-eval's task of that name with its data from the hub, kept below `cache`.

    Raises UnknownNameError if lm-eval has no such task, MissingFileError if its data are not within reach.
    """
    from datasets import config as datasets_config

    manager = _manager(known.folder if known else "")
    wanted = known.task if known else name
    _settings(manager, wanted, named_leaves)
    before = datasets_config.HF_DATASETS_CACHE
    datasets_config.HF_DATASETS_CACHE = cache
    try:
        with quiet(), libraries(name):
            found = manager.load([wanted])
    except FedloomError:
        raise
    except (*_LACKING, ValueError) as error:
        line = one_line(error)[:200]
        columns = f"with the columns {', '.join(known.columns)}; " if known else ""
        fetch = f"fetch {known.source}, {columns}" if known else ""
        raise MissingFileError(
            f"task '{name}': neither a local file nor the hub has its data ({line}); {fetch}put them as "
            f"DIR/{name}.jsonl and give --data-dir DIR."
        ) from error
    finally:
        datasets_config.HF_DATASETS_CACHE = before
    return _loaded(found["tasks"])


@functools.cache
def _manager(folder: str) -> Any:
    """Return lm-eval's index of tasks below a folder of its own; "" for all of its thousands of files."""
    import lm_eval.tasks

    with quiet():
        if not folder:
            return lm_eval.tasks.TaskManager()
        place = Path(lm_eval.tasks.__file__).parent / folder
        return lm_eval.tasks.TaskManager(include_path=str(place), include_defaults=False)


def check_name(name: str) -> None:
    """Refuse a name that neither fedloom nor lm-eval has, and a single task that takes no local rows."""
    if name in HARNESS:
        return
    index = _index(_manager(""), name)
    if index[name].kind.name == "PY_TASK":
        _refuse_class(index[name].cfg, name)


def _index(manager: Any, wanted: str) -> Mapping[str, Any]:
    if wanted not in manager.task_index:
        near = suggest(wanted, {*manager.task_index, *sources()}).partition(" Known:")[0]
        hint = f"{near} " if near.startswith("Did") else ""
        raise UnknownNameError(f"no task '{wanted}' in lm-eval. {hint}`lm-eval ls tasks` lists all that it has.")
    return manager.task_index


def _refuse_class(settings: Mapping[str, Any], leaf: str) -> None:
    if "class" in settings:
        raise ConfigError(
            f"task '{leaf}': lm-eval defines it by a Python class, which fetches its data itself and takes no local "
            "rows; leave out --data-dir where the hub is within reach, or write a task file (docs/closed_ended.md)."
        )


def _named_splits(settings: Mapping[str, Any], data: LocalData) -> dict[str, list[Document]]:
    """Return the splits that a definition names: the questions under the one it evaluates, the shots elsewhere."""
    questions, shots = ([dict(record.values) for record in part] for part in (data.questions, data.shots))
    asked = str(settings.get("test_split") or settings.get("validation_split"))
    examples = settings.get("fewshot_config") or {}
    others = [settings.get(f"{part}_split") for part in ("training", "validation", "fewshot")]
    splits = {str(split): shots for split in [*others, examples.get("split")] if split}
    return {**splits, asked: questions}


def _splits(splits: Mapping[str, list[Document]]) -> Callable[..., Any]:
    from datasets import Dataset

    try:
        made = {name: Dataset.from_list(rows) for name, rows in splits.items()}
    except (ValueError, TypeError) as error:  # pyarrow's refusals are both
        raise DataError(
            f"the rows of a task do not agree in their columns' types ({one_line(error)}); mend the file."
        ) from error
    return lambda **_: made  # lm-eval hands over a task's metadata, which no row depends on


def _loaded(tasks: Mapping[str, Any]) -> Loaded:
    versions = {str(task.VERSION) for task in tasks.values()}
    return Loaded(tasks, ", ".join(sorted(versions)))


# --------------------------------------------------------------------------------------------------------------- shots


def set_shots(loaded: Loaded, shots: int | None, name: str) -> int:
    """Set how many solved questions stand before each; return it. Too few of them are refused."""
    counts: set[int] = set()
    for task in loaded.tasks.values():
        stated = task.get_config("num_fewshot")
        if shots and stated == 0:
            raise ConfigError(
                f"--shots: found {shots}, task '{name}' is defined without solved questions; leave it out."
            )
        count = shots if shots is not None else stated or 0
        task.set_config("num_fewshot", count)
        task.set_fewshot_seed(_SHOT_SEED)
        have = len(task.sampler.fewshot_docs()) if count else 0
        if have and task.get_config("fewshot_config").split == task.get_config("test_split"):
            have -= 1  # a question does not stand before itself
        if count > have:
            raise DataError(
                f"task '{name}' asks with {count} solved questions, {have} were found; put them as "
                f"{name}_shots.jsonl beside the questions, or give --shots 0."
            )
        counts.add(count)
    return max(counts)
