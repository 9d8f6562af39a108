"""A first run file for data and a model: what they look like, written down with the reason for each line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from fedloom.base import config
from fedloom.base.errors import ConfigError, DataError, RunError, suggest
from fedloom.base.files import write_atomic
from fedloom.contracts.examples import Chat, Document, Example, Preference
from fedloom.contracts.language import Tokenizer
from fedloom.data.clients import Division, divide
from fedloom.data.guessing import Look, look_at, owners
from fedloom.data.records import find_files
from fedloom.models.checkpoint import Checkpoint
from fedloom.runs.text_templates import text_template
from fedloom.runs.tuning import TuningRun, read_run

__all__ = ["write_first_file"]

_ROOM = 32  # tokens that a template adds to a text, roughly
_SIMULATED = 4
_LONGEST = 2048


@dataclass(frozen=True)
class _Lengths:
    """Tokens of examples and of their answers."""

    whole: Sequence[int]
    answers: Sequence[int]

    @property
    def most(self) -> int:
        """A multiple of 64 that 99 of 100 examples fit into."""
        return min(_LONGEST, 64 * math.ceil((np.quantile(self.whole, 0.99, method="higher") + _ROOM) / 64))

    @property
    def cut(self) -> float:
        """Share of examples that are longer."""
        return sum(n + _ROOM > self.most for n in self.whole) / len(self.whole)


def write_first_file(path: Path, data: str, model: str, *, client: str, columns: Mapping[str, str]) -> list[str]:
    """Write a commented run file for records and a model, and return lines about what was found.

    Files of several layouts are told apart; each file is an owner where no column tells one. Refused is a file that is
    there already, and data that cannot be read.
    """
    if path.exists():
        raise RunError(f"{path}: exists; choose another --out.")
    looks = [look_at(file, columns) for file in find_files(data).values()]
    for name, column in columns.items():
        if not any(column in look.records[0].values for look in looks):
            raise ConfigError(
                f"--column {name}={column}: no file has that column. {suggest(column, looks[0].records[0].values)}"
            )
    owner = owners(looks, client)
    source = _source(looks, data, owner)
    partition = _partition(looks, owner)
    run = read_run({"data": source, **partition, "model": {"path": model}})
    division = divide(run.data, run.partition, n_clients=run.clients, seed=0, aside=run.evaluation.aside(private=False))
    text = _written(run, division, looks, owner, source, partition, model)
    read_run(config.parse(text, str(path)))  # what is written must be read
    write_atomic(path, text)
    return _told(division, looks, path)


def _source(looks: Sequence[Look], data: str, owner: str) -> dict[str, Any]:
    tags = {"tags": {"client": owner}} if owner else {}
    first = looks[0]
    if len({look.layout for look in looks}) == 1:
        return {"name": "file", "path": data, **_layout(first), **tags}
    files = [{"path": str(look.path), **_layout(look)} for look in looks]
    names = [look.path.name for look in looks]
    if len(set(names)) < len(names):
        raise DataError(f"{data}: two files of unlike layout are both called '{names[0]}'; rename one.")
    return {"name": "file", "files": files, **tags}


def _layout(look: Look) -> dict[str, Any]:
    layout: dict[str, Any] = {"form": look.form}
    if look.columns:
        layout["columns"] = dict(look.columns)
    return layout | ({"encoding": look.encoding} if look.encoding != "utf-8" else {})


def _partition(looks: Sequence[Look], owner: str) -> dict[str, Any]:
    if owner:
        return {"partition": {"name": "by_key", "tag": "client"}}
    if len(looks) > 1:
        return {"partition": {"name": "by_key", "tag": "file"}}
    return {"clients": min(_SIMULATED, len(looks[0].records)), "partition": {"name": "iid"}}


def _written(
    run: TuningRun,
    division: Division,
    looks: Sequence[Look],
    owner: str,
    source: Mapping[str, Any],
    partition: Mapping[str, Any],
    model: str,
) -> str:
    found = Checkpoint.find(model)
    examples = [one for part in division.train.values() for one in part]
    lengths = _lengths(examples, found.tokenizer())
    sizes = [len(part) for part in division.train.values()]
    answer = np.quantile(lengths.answers, 0.9, method="higher")
    return text_template("fedloom.runs", "first_file.toml.jinja").render(
        model=tomli_w.dumps({"path": model}).strip(),
        ships=not model,
        source=tomli_w.dumps({"data": source}).strip(),
        partition=tomli_w.dumps({k: v for k, v in partition.items() if k == "partition"}).strip(),
        simulated=partition.get("clients", 0),
        owner=owner,
        encodings=sorted({look.encoding for look in looks} - {"utf-8"}),
        n_files=len(looks),
        n_clients=len(sizes),
        fewest=min(sizes),
        most=max(sizes),
        n_held=sum(map(len, division.validation.values())),
        kind=_kind(examples),
        max_length=lengths.most,
        cut=lengths.cut,
        longest=max(lengths.whole),
        batch=max(1, min(16 if found.weight_bytes < 50_000_000 else 4, min(sizes))),
        lr="1e-2" if found.weight_bytes < 50_000_000 else "2e-3",
        max_new_tokens=max(8, min(256, 8 * math.ceil(answer / 8))),
        metric="exact_match" if answer <= 8 else "token_f1",
    )


def _kind(examples: Sequence[Example]) -> str:
    kinds = {type(one) for one in examples}
    return "preferences" if Preference in kinds else "documents" if kinds == {Document} else "conversations"


def _lengths(examples: Sequence[Example], tokenizer: Tokenizer) -> _Lengths:
    def count(texts: Sequence[str]) -> list[int]:
        # Cut before tokenising: one record of megabytes must not cost gigabytes.
        return [len(tokens) for tokens in tokenizer([text[:50_000] for text in texts])["input_ids"]]

    answers = [one.reference for one in examples]
    return _Lengths(count([_text(one) for one in examples]), count(answers))


def _text(example: Example) -> str:
    return "\n".join(turn.text for turn in example.turns) if isinstance(example, Chat) else example.text


def _told(division: Division, looks: Sequence[Look], path: Path) -> list[str]:
    n_train, n_held = (sum(map(len, part.values())) for part in (division.train, division.validation))
    names = ", ".join(list(division.train)[:6]) + (", ..." if len(division.train) > 6 else "")
    forms = ", ".join(dict.fromkeys(look.form for look in looks))
    return [
        f"{n_train + n_held} records of form {forms} in {len(looks)} file(s); {len(division.train)} owners: {names}",
        f"{n_train} to train on, {n_held} held out as the test",
        f"{path}: read it, then",
        f"  fedloom doctor {path}",
        f"  fedloom run {path}",
    ]
