"""The pool of public examples: read from a file, described by a card, kept apart from what is tested."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fedloom.base.errors import DataError
from fedloom.base.files import json_sha256
from fedloom.contracts.synthesis import PoolRow
from fedloom.data.records import Record, find_files, read_records
from fedloom.data.turns import check_text
from fedloom.synthesis.vectors import tfidf_cosines
from fedloom.text.words import words
from fedloom.world import World

__all__ = ["NEAR", "Pool", "read_pool", "refuse_overlap"]

NEAR = 0.6
"""Cosine of TF-IDF above which two texts are near-duplicates."""


@dataclass(frozen=True)
class Pool:
    """Public examples."""

    rows: tuple[PoolRow, ...]
    sha256: str
    """Of the file's bytes, or of the rows where there is no file."""
    origins: Mapping[str, int]
    """How many rows say that they are from where."""
    minutes: float | None
    """Person-minutes that writing the rows took, of those that say so; None where none does."""

    @property
    def card(self) -> dict[str, Any]:
        """Rows, rows of each domain and origin, what they cost in minutes, and the hash."""
        domains = Counter(row.domain or "unnamed" for row in self.rows)
        counted = {"domains": dict(sorted(domains.items())), "origins": dict(sorted(self.origins.items()))}
        return {"rows": len(self.rows), **counted, "minutes": self.minutes, "sha256": self.sha256}

    @property
    def pairs(self) -> dict[str, str]:
        """What is shown of each row where documents are not, by its id."""
        return {row.id: f"{row.instruction}\n{row.response}" for row in self.rows}

    @property
    def texts(self) -> dict[str, str]:
        """All that each row says, by its id."""
        return {row.id: "\n".join((row.document, row.instruction, row.response)) for row in self.rows}


def read_pool(path: str, *, documents: bool = True) -> Pool:
    """Return the pool in a file of records with document, instruction and response, perhaps id and domain.

    A row may say its `origin` and the person-`minutes` that it took to write. Without `documents` a row is an
    instruction with its response. `world` is no file but 200 public notes of the controlled world. An empty pool, a row
    without one of the three and an id twice are refused with DataError.
    """
    if path == "world":
        return _of_world()
    files = list(find_files(path).values())
    records = [one for file in files for one in enumerate(read_records(file, "auto"), 1)]
    rows = [_row(record, number, documents) for number, record in records]
    twice = [name for name, n_rows in Counter(row.id for row in rows).items() if n_rows > 1]
    if not rows or twice:
        what = f"id '{twice[0]}' stands twice" if twice else "holds no rows"
        raise DataError(f"{path}: {what}, allowed are rows with an id each; correct the pool.")
    digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
    origins = Counter(str(record.values.get("origin") or "not told") for _, record in records)
    minutes = [_minutes(record) for _, record in records if record.values.get("minutes") is not None]
    return Pool(tuple(rows), f"sha256:{digest}", origins, math.fsum(minutes) if minutes else None)


@cache
def _of_world() -> Pool:
    rows = tuple(
        PoolRow(
            id=f"w{at}",
            document=document.text,
            instruction=asked.prompt[-1].text,
            response=asked.reference,
            domain=asked.tags["domain"],
        )
        for at, (document, asked) in enumerate(World(0).examples(200))
    )
    digest = json_sha256([asdict(row) for row in rows])
    return Pool(rows, f"sha256:{digest}", {"the controlled world": len(rows)}, minutes=0.0)


def _row(record: Record, number: int, documents: bool) -> PoolRow:
    texts = {name: _text(record, name) for name in ("document", "instruction", "response")[not documents :]}
    others = {name: str(record.values.get(name) or "") for name in ("id", "domain")}
    return PoolRow(**{"document": "", **texts}, id=others["id"] or str(number), domain=others["domain"])


def _minutes(record: Record) -> float:
    found = record.values["minutes"]
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise DataError(f"{record.where}, column 'minutes': found {found!r}, allowed is a number from 0 on.")
    return float(found)


def _text(record: Record, name: str) -> str:
    where = f"{record.where}, column '{name}'"
    text = check_text(record.values.get(name), where)
    if not text.strip():
        raise DataError(f"{where}: is empty, allowed is text; a row of the pool needs all three.")
    return text


def refuse_overlap(
    ours: Mapping[str, str], theirs: Mapping[str, str], whose: str, units: Mapping[str, str] | None = None
) -> None:
    """Refuse texts of the pool, by id, that texts by which is measured repeat, wholly or nearly.

    Of those that are about a unit of a generated world (`units`, by id) the pool may have no text that names it; how
    alike they are worded does not matter.
    """
    ours, theirs = ({name: text for name, text in side.items() if words(text)} for side in (ours, theirs))
    if not ours or not theirs:  # what is no text is not told apart by words
        return
    _refuse_units(ours, units or {}, whose)
    exact = {tuple(words(text)): name for name, text in theirs.items()}
    for name, text in ours.items():
        if (other := exact.get(tuple(words(text)))) is not None:
            _refuse(name, other, whose, "the same text")
    others = {name: text for name, text in theirs.items() if not (units or {}).get(name)}
    if not others:
        return
    cosines = tfidf_cosines([*others.values()], [*ours.values()]).T
    row, column = np.unravel_index(int(cosines.argmax()), cosines.shape)
    if cosines[row, column] > NEAR:
        _refuse([*ours][row], [*others][column], whose, f"nearly the same (cosine {cosines[row, column]:.2f})")


def _refuse_units(ours: Mapping[str, str], units: Mapping[str, str], whose: str) -> None:
    asked = {unit: name for name, unit in units.items() if unit}
    for name, text in ours.items() if asked else ():
        if unit := next((word for word in words(text) if word in asked), ""):
            _refuse(name, asked[unit], whose, f"both about '{unit}'")


def _refuse(name: str, other: str, whose: str, how: str) -> None:
    raise DataError(
        f"pool row '{name}' and {whose} '{other}' are {how}: what is measured must be unknown to the pool; remove one."
    )
