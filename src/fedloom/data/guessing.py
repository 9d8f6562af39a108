"""What a file of records looks like before anybody describes it: encoding, form, columns, who owns a record.

A guess is written into a run file, where its owner reads it: nothing that trains guesses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedloom.base.errors import ConfigError, DataError, suggest
from fedloom.data.forms import FORMS, Fields, detect
from fedloom.data.records import Record, read_records

__all__ = ["Look", "look_at", "owners"]

_ASKING = ("instruction", "question", "prompt", "query", "input", "frage", "pregunta", "pergunta", "domanda", "vraag")
_ANSWERING = (
    *("output", "answer", "response", "completion", "reply", "target"),
    *("antwort", "respuesta", "resposta", "reponse", "réponse", "risposta", "antwoord"),
)
_TEXT = ("text", "note", "document", "content", "body", "befund", "texto", "texte")
_OWNING = (
    *("client", "hospital", "clinic", "owner", "site", "bank", "institution", "organisation", "organization"),
    *("department", "user", "author", "annotator", "worker", "source", "region", "klinik", "praxis", "kunde"),
)
_NOT_UTF8 = "cp1252"


@dataclass(frozen=True)
class Look:
    """A file as it was taken to be."""

    path: Path
    encoding: str
    form: str
    columns: Mapping[str, str]
    """The form's name of a column, and the file's."""
    records: Sequence[Record]

    @property
    def layout(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """What two files of one layout have in common."""
        return self.encoding, self.form, tuple(sorted(self.columns.items()))


def look_at(path: Path, named: Mapping[str, str]) -> Look:
    """Return how a file is read; `named` are columns that its owner has named, by the name of the form.

    Refused with DataError or ConfigError is one whose columns tell neither question and answer nor a text.
    """
    encoding, records = _read(path)
    first = records[0]
    ours = {name: column for name, column in named.items() if column in first.values}
    if ours:
        return Look(path, encoding, _form_of(ours, first), ours, records)
    try:
        return Look(path, encoding, detect(Fields(first, {})), {}, records)
    except ConfigError:  # of several forms its owner chooses
        raise
    except DataError:
        form, columns = _guessed(first)
        return Look(path, encoding, form, columns, records)


def _read(path: Path) -> tuple[str, list[Record]]:
    try:
        return "utf-8", read_records(path)
    except DataError as error:
        if "not UTF-8" not in str(error):
            raise
    return _NOT_UTF8, read_records(path, encoding=_NOT_UTF8)


def _form_of(columns: Mapping[str, str], first: Record) -> str:
    known = columns.keys() | first.values.keys()
    fitting = [name for name, form in FORMS.items() if form.guessed and set(form.needs) <= known]
    fitting = [name for name in fitting if columns.keys() <= {*FORMS[name].needs, *FORMS[name].reads}]
    if not fitting:
        allowed = "; ".join(f"{name} ({', '.join(form.needs)})" for name, form in FORMS.items() if form.guessed)
        raise ConfigError(f"columns: {', '.join(columns)} are those of no form; allowed are {allowed}.")
    return fitting[0]


def _guessed(first: Record) -> tuple[str, dict[str, str]]:
    texts = [
        name for name, value in first.values.items() if isinstance(value, str) and not name.casefold().endswith("id")
    ]
    if len(first.values) == 1 and set(texts[0] if texts else "") & set(";\t|"):
        raise ConfigError(f"{first.where}: one column, {texts[0]!r}; columns of CSV are divided by commas: save it so.")
    answering = _called(_ANSWERING, texts)
    asking = _called(_ASKING, [name for name in texts if name != answering])
    if asking and answering:
        return "alpaca", {"instruction": asking, "output": answering}
    if whole := _called(_TEXT, texts):
        return "text", {"text": whole}
    raise ConfigError(
        f"{first.where}: of the columns {', '.join(first.values)} none is known to hold questions and answers; say "
        "which do: --column instruction=COLUMN --column output=COLUMN, or --column text=COLUMN."
    )


def _called(names: Sequence[str], columns: Sequence[str]) -> str:
    """Return the column that is called by one of the names, or has one in it; "" where none is."""
    for name in names:
        for column in columns:
            if column.casefold() == name:
                return column
    for name in names:
        for column in columns:
            if name in column.casefold():
                return column
    return ""


def owners(looks: Sequence[Look], asked: str) -> str:
    """Return the column that tells who owns a record: the one asked for, or one that looks like it; "" for none."""
    shared = [name for name in looks[0].records[0].values if all(_tells(look, name) for look in looks)]
    if asked:
        if not all(asked in one.values for look in looks for one in look.records):
            raise ConfigError(f"--client: not every record has '{asked}'. {suggest(asked, shared)}")
        return asked
    taken = {column for look in looks for column in look.columns.values()}
    several = {name for name in shared if len({one.values[name] for look in looks for one in look.records}) > 1}
    return _called(_OWNING, [name for name in shared if name in several - taken])


def _tells(look: Look, column: str) -> bool:
    """Return whether a column divides the records among a few owners."""
    values = [one.values.get(column) for one in look.records]
    plain = all(isinstance(value, str | int) and not isinstance(value, bool) and value != "" for value in values)
    return plain and 1 <= len(set(values)) <= max(2, len(values) // 4)
