"""Tasks as data: a TOML or YAML file says what is asked, how, and what a right answer is; nothing in it is run.

A pattern is text with `{column}` in it; a column's value is put in as it stands, once, and is never itself read as a
pattern. There are four kinds:

* `choice`: the option with the highest log-likelihood after the prompt is the answer. With `{options}` in the prompt
  they stand there under letters, and the letters are what is scored; otherwise their texts are.
* `label`: a generated answer; its label is the one that its first line names first. Where it names none the answer is
  wrong and counted under `unparsed`; no label stands in for it.
* `text`: a generated answer, equal to the right one apart from case and white space.
* `code`: a generated program that has to come to its end (`code_execution`).
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fedloom.base import config, rng
from fedloom.base.errors import ConfigError, DataError, MissingFileError, one_line
from fedloom.base.plugin import AtLeast, Count, Range, check_ranges
from fedloom.data.records import Record, read_text

__all__ = ["LETTERS", "Document", "TaskFile", "check_columns", "read_task_file", "the_label"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COLUMN = re.compile(r"\{(\w+)\}")

Document = dict[str, Any]
"""A question as lm-eval gets it: `id`, `prompt`, `answer`; by kind `choices`, or `before` and `after` of a program."""


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """One task; equal files score equal answers equally, and whoever changes a score raises the version."""

    name: str
    version: AtLeast
    kind: Literal["choice", "label", "text", "code"]
    prompt: str
    """Pattern of what is asked."""
    answer: str = ""
    """Column of the right answer: of a choice the number of the option from 0, its letter or its text."""
    source: str = ""
    """What to fetch, and from where: shown where the data are missing."""
    options: tuple[str, ...] = ()
    """choice: patterns of the options; a single one that is a column's name alone may hold a list of texts."""
    shuffled: bool = False
    """choice: whether the options change places, by a seed that the question's number names; `answer` is left out, and
    the first option is the right one."""
    labels: tuple[str, ...] = ()
    """label: what may be answered, in the order of all tables."""
    values: Mapping[str, str] = field(default_factory=dict[str, str])
    """label: what a value of the answer's column means, for instance {"0" = "negative"}."""
    cuts: tuple[float, ...] = ()
    """label: where a number in the answer's column passes from one label to the next, one number fewer than labels."""
    program: str = ""
    """code: pattern of the program; `{completion}` is what the model wrote."""
    stop: tuple[str, ...] = ("\n",)
    """label, text and code: texts that end an answer."""
    max_new_tokens: AtLeast = 32
    shots: Count = 0
    """Solved questions before each question."""
    join: str = " "
    """What stands between a prompt and its answer where there is no template."""
    test_share: Annotated[float, Range(0, 1, low_excluded=True)] = 1.0
    """Share of the rows that is the test, drawn by datasets.Dataset.train_test_split with `split_seed`."""
    split_seed: Count = 42

    def __post_init__(self) -> None:
        check_ranges(self)
        needed = {
            "choice": ("options",) if self.shuffled else ("options", "answer"),
            "label": ("labels", "answer"),
            "text": ("answer",),
            "code": ("program",),
        }
        for name in needed[self.kind]:
            if not vars(self)[name]:
                raise ConfigError(f"{name}: missing; a task of kind '{self.kind}' needs it.")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.name):
            raise ConfigError(f"name: found {self.name!r}, allowed are up to 64 letters, digits, '_' and '-'.")
        if self.cuts and (len(self.cuts) != len(self.labels) - 1 or list(self.cuts) != sorted(self.cuts)):
            raise ConfigError(f"cuts: found {list(self.cuts)}, allowed are {len(self.labels) - 1} rising numbers.")
        if self.kind == "code" and self.program.count("{completion}") != 1:
            raise ConfigError(f"program: found {self.program!r}, allowed is a pattern with '{{completion}}' once.")
        _check_labels(self.labels)
        odd = sorted(set(self.values.values()) - set(self.labels))
        if odd:
            raise ConfigError(f"values: found the label '{odd[0]}', allowed are {', '.join(self.labels)}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row needs."""
        own = {"choice": {"options"}, "code": {"completion"}}.get(self.kind, set())
        patterns = [self.prompt, *self.options, self.program]
        named = [name for pattern in patterns for name in _COLUMN.findall(pattern) if name not in own]
        return tuple(dict.fromkeys([*named, *filter(None, [self.answer])]))

    def documents(self, records: Sequence[Record]) -> list[Document]:
        """Return the questions of rows in their order; a row that does not fit is refused with its place."""
        return [self._document(index, record) for index, record in enumerate(records)]

    def _document(self, index: int, record: Record) -> Document:
        check_columns(record, self.name, self.columns)
        values = {name: _text(record.values[name]) for name in self.columns}
        head: Document = {"id": str(index)}
        if self.kind == "choice":
            return head | self._choice(index, record, values)
        head["prompt"] = _fill(self.prompt, values)
        if self.kind == "label":
            return head | {"answer": self._label(record)}
        if self.kind == "code":
            before, after = (_fill(part, values) for part in self.program.split("{completion}"))
            return head | {"answer": values.get(self.answer, ""), "before": before, "after": after}
        return head | {"answer": values[self.answer]}

    def _choice(self, index: int, record: Record, values: Mapping[str, str]) -> Document:
        options = [text for pattern in self.options for text in _option(pattern, record, values)]
        if not 2 <= len(options) <= len(LETTERS):
            raise DataError(f"{record.where}: found {len(options)} options, allowed are 2 to {len(LETTERS)}.")
        order = list(range(len(options)))
        if self.shuffled:
            rng.python_random("options", self.name, self.split_seed, index).shuffle(order)
            right = order.index(0)
        else:
            right = _place(record.values[self.answer], options, f"{record.where}: {self.answer}")
        options = [options[place] for place in order]
        listed = "\n".join(f"{LETTERS[i]}. {text}" for i, text in enumerate(options))
        lettered = "{options}" in self.prompt
        prompt = _fill(self.prompt, {**values, "options": listed})
        return {"prompt": prompt, "choices": list(LETTERS[: len(options)]) if lettered else options, "answer": right}

    def _label(self, record: Record) -> str:
        value, where = record.values[self.answer], f"{record.where}: {self.answer}"
        if self.cuts:
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise DataError(f"{where}: found {value!r}, allowed is a number; cuts make labels of numbers.")
            return self.labels[sum(value >= cut for cut in self.cuts)]
        label = self.values.get(str(value), str(value))
        if label not in self.labels:
            known = (*self.values, *self.labels)
            raise DataError(f"{where}: found {value!r}, allowed are {', '.join(dict.fromkeys(known))}.")
        return label


def check_columns(record: Record, task: str, columns: Sequence[str]) -> None:
    """Refuse a row that lacks a column of the task."""
    missing = [column for column in columns if record.values.get(column) is None]
    if missing:
        raise DataError(
            f"{record.where}: no column '{missing[0]}', task '{task}' needs {', '.join(columns)}; "
            f"found are {', '.join(map(str, record.values)) or 'none'}."
        )


def _check_labels(labels: Sequence[str]) -> None:
    folded = [_folded(label) for label in labels]
    for index, label in enumerate(folded):
        if not label.strip() or label in folded[:index]:
            raise ConfigError(
                f"labels: found {labels[index]!r} at place {index}, allowed are texts that are not empty and differ in "
                "more than case; leave it out or rename it."
            )


def the_label(answer: str, labels: Sequence[str]) -> str:
    """Return the label that the first line of an answer names first, in any case and as a word; "" for none.

    Of two that begin at one place it is the longer one. A label has to end where a word does only in scripts that know
    upper and lower case: others, such as Chinese, put no blanks between words.

    >>> the_label("Neutral, not positive.", ("negative", "neutral", "positive"))
    'neutral'
    """
    line = _folded(answer.strip().split("\n")[0])
    names = {_folded(label): label for label in labels}
    by_length = sorted(names, key=len, reverse=True)
    for start in range(len(line)):
        for text in by_length:
            if line.startswith(text, start) and _is_word(line, start, start + len(text)):
                return names[text]
    return ""


def _folded(text: str) -> str:
    """Return a text without differences of case and width; the dotted and the dotless i of Turkish are one letter."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFC", folded.replace("i\u0307", "i").replace("\u0131", "i"))


def _is_word(line: str, start: int, end: int) -> bool:
    """Return whether no word goes on beyond either end of a place in a folded line."""
    edges = [(line[start - 1], line[start])] if start > 0 else []
    edges += [(line[end - 1], line[end])] if end < len(line) else []
    return not any(_joins(before) and _joins(behind) for before, behind in edges)


def _joins(letter: str) -> bool:
    return letter == "_" or letter.isdigit() or letter.upper() != letter.lower()


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    return _COLUMN.sub(lambda found: values[found[1]], pattern)


def _option(pattern: str, record: Record, values: Mapping[str, str]) -> list[str]:
    alone = _COLUMN.fullmatch(pattern)
    value = record.values[alone[1]] if alone else None
    return [_text(item) for item in value] if isinstance(value, list) else [_fill(pattern, values)]


def _text(value: Any) -> str:
    """Return a column's value as text; the items of a list are lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _place(value: Any, options: Sequence[str], where: str) -> int:
    """Return the place of the right option, given as a number from 0, as its text or as its letter."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options):
        return value
    if value in options:
        return options.index(value)
    letters = LETTERS[: len(options)]
    if isinstance(value, str) and len(value) == 1 and value.upper() in letters:
        return letters.index(value.upper())
    raise DataError(
        f"{where}: found {value!r}, allowed is a number from 0 to {len(options) - 1}, a letter from A to {letters[-1]} "
        "or the text of an option."
    )


def read_task_file(path: Path) -> TaskFile:
    """Return the task of a TOML or YAML file; unknown keys, tags of YAML and anything that would be run are refused."""
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise ConfigError(f"{path}: found '{path.suffix}', allowed is a task as .toml, .yaml or .yml.")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such task file; give the path of a TOML or YAML file.")
    text = read_text(path)
    table = config.parse(text, str(path)) if path.suffix == ".toml" else _yaml(text, path)
    try:
        return config.build(TaskFile, table)
    except ConfigError as error:
        raise type(error)(f"{path}: {error}") from error


def _yaml(text: str, path: Path) -> dict[str, Any]:
    import yaml

    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path}: no plain YAML: {one_line(error)}; tags such as !function are not allowed."
        ) from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: found no table of keys; see docs/closed_ended.md.")
    values = table.get("values")
    if isinstance(values, dict):  # unlike TOML, YAML makes a number of the key 0
        table["values"] = {str(key): value for key, value in values.items()}
    return {str(key): value for key, value in table.items()}
