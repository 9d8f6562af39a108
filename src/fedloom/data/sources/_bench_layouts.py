"""The layouts of FedLLM-Bench's files: what a record holds, what a file is made of, and how both are told apart.

| layout | fields of a record | file |
|---|---|---|
| `instruction` | instruction, response | {user: [records]}, or a list |
| `multi-turn` | conversations: turns {from: human or gpt, value}; a leading gpt or system turn is dropped | the same |
| `preference` | prompt, chosen, rejected | the same |
| `test with references` | instruction, reference | {language: [records]} |
| `test with languages` | instruction, language | a list |
| `test` | instruction | a list |

A training record may tell its `language`, too; the released ones tell none.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.base.errors import DataError, MissingFileError
from fedloom.contracts.examples import Chat, Example, Preference, Turn, chat, tagged
from fedloom.data.forms import Fields, placed, sharegpt_turns
from fedloom.data.records import Record, parse_json, read_text
from fedloom.data.turns import check_text

__all__ = ["LOCAL", "TEST", "TRAINING", "Layout", "examples_of", "groups_of", "languages_of", "layout_of"]

LOCAL = "local"
"""The user of a flat list."""
_ADVICE = "give the path of a JSON file in a layout of FedLLM-Bench"


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout of records: its name, the fields that tell it, and how one becomes an example of a group."""

    name: str
    needs: tuple[str, ...]
    build: Callable[[Fields, str], Example]

    def __str__(self) -> str:
        return f"'{self.name}' ({', '.join(self.needs)})"


def _instruction(fields: Fields, user: str) -> Example:
    return chat(fields.text("instruction"), fields.text("response"), client=user)


def _dialogue(fields: Fields, user: str) -> Example:
    turns = sharegpt_turns(fields)
    return Chat(tuple(turns[1:] if turns and turns[0].role != "user" else turns), {"client": user})


def _preference(fields: Fields, user: str) -> Example:
    prompt = (Turn("user", fields.text("prompt")),)
    return Preference(prompt, fields.text("chosen"), fields.text("rejected"), {"client": user})


def _referenced(fields: Fields, language: str) -> Example:
    return chat(fields.text("instruction"), fields.text("reference"), language=language)


def _with_language(fields: Fields, group: str) -> Example:
    return chat(fields.text("instruction"), "", language=fields.text("language"), reference="none")


def _bare(fields: Fields, group: str) -> Example:
    return chat(fields.text("instruction"), "", reference="none")


TRAINING = (
    Layout("instruction", ("instruction", "response"), _instruction),
    Layout("multi-turn", ("conversations",), _dialogue),
    Layout("preference", ("prompt", "chosen", "rejected"), _preference),
)
TEST = (  # the first that fits: the fields of one are among those of another
    Layout("test with references", ("instruction", "reference"), _referenced),
    Layout("test with languages", ("instruction", "language"), _with_language),
    Layout("test", ("instruction",), _bare),
)


def groups_of(path: str, advice: str = _ADVICE) -> dict[str, list[Record]]:
    """Return the records of a file by user (by language in a test set with references), in file order.

    A flat list is one group called `local`. Raises MissingFileError, with the advice, if there is no file; DataError
    naming file, group and record if it is no such object or list, is no UTF-8, has a key twice, a group without a name
    or one without records.
    """
    whole = _parsed(path, advice)
    groups = {LOCAL: whole} if isinstance(whole, list) else whole
    if not isinstance(groups, dict) or not groups:
        found = "an empty object" if groups == {} else type(whole).__name__
        raise DataError(f"{path}: found no user, allowed is {{user: [records]}} or a list of records, found {found}.")
    for number, group in enumerate(groups, start=1):
        if not check_text(group, f"{path}, name of user {number}").strip():
            raise DataError(f"{path}, name of user {number}: found an empty name; give every user a name.")
    return {group: list(_records(found, f"{path}, user '{group}'")) for group, found in groups.items()}


def _parsed(path: str, advice: str) -> Any:
    if Path(path).is_dir():
        raise DataError(f"{path}: is a folder, allowed is one file; give the JSON file in it.")
    if not Path(path).is_file():
        raise MissingFileError(f"{path}: no such file; {advice}.")
    text = read_text(Path(path))
    if not text.strip():
        raise DataError(f"{path}: is empty, allowed is a JSON file; fetch, build or write it anew.")
    return parse_json(text, path)


def _records(found: Any, where: str) -> Iterator[Record]:
    if not isinstance(found, list) or not found:
        raise DataError(f"{where}: found {'no record' if found == [] else type(found).__name__}, allowed is a list.")
    for number, values in enumerate(found, start=1):
        if not isinstance(values, dict):
            raise DataError(f"{where}, record {number}: found {type(values).__name__}, allowed is an object.")
        yield Record(f"{where}, record {number}", values)


def layout_of(record: Record, allowed: Sequence[Layout]) -> Layout:
    """Return the layout of a record; another one than allowed is refused by its name, one of several by its fields."""
    keys = record.values.keys()
    training = [layout for layout in TRAINING if keys >= set(layout.needs)]
    test = [] if training else [layout for layout in TEST if keys >= set(layout.needs)][:1]
    fitting = training + test
    names = "; ".join(map(str, allowed))
    if len(fitting) != 1:
        found = ", ".join(record.values) or "none"
        raise DataError(f"{record.where}: found the fields {found}, allowed is exactly one of the layouts {names}.")
    if fitting[0] not in allowed:
        raise DataError(f"{record.where}: found the layout {fitting[0]}, allowed here are {names}; check the paths.")
    return fitting[0]


def languages_of(path: str, users: Iterable[str]) -> dict[str, str]:
    """Return the language of each user from a file {user: language}; others that it names are left aside."""
    told = _parsed(path, "give the path of a JSON file {user: language}")
    if not isinstance(told, dict):
        raise DataError(f"{path}: found {type(told).__name__}, allowed is {{user: language}}.")
    return {user: _language_of(told, user, path) for user in users}


def _language_of(told: Mapping[str, Any], user: str, path: str) -> str:
    if user not in told:
        raise DataError(f"{path}, user '{user}': has no language; name one for every user that trains.")
    return _language(told[user], f"{path}, user '{user}'")


def _language(value: Any, where: str) -> str:
    if not check_text(value, where).strip():
        raise DataError(f"{where}: found empty text, a language needs a name.")
    return value


def examples_of(
    groups: Mapping[str, Sequence[Record]], layout: Layout, languages: Mapping[str, str] | None = None
) -> list[Example]:
    """Return the records of all groups, each of which must be of the layout, as examples.

    A training record has the tag `language` if it tells one, or if `languages` has one for its user; a record that
    tells another than that is refused.
    """
    told = languages or {}
    examples = ((_example(layout, record, group), record, group) for group, rows in groups.items() for record in rows)
    if layout in TEST:
        return [example for example, _, _ in examples]
    return [_spoken(example, record, told.get(group)) for example, record, group in examples]


def _spoken(example: Example, record: Record, told: str | None) -> Example:
    own = record.values.get("language")
    if own is not None:  # null, as tables have it for what is missing, tells none
        own = _language(own, f"{record.where}, column 'language'")
    if own and told and own != told:
        raise DataError(
            f"{record.where}: tells the language '{own}', languages_path says '{told}'; mend one of the two files, or "
            "leave languages_path out."
        )
    language = own or told
    return tagged(example, language=language) if language else example


def _example(layout: Layout, record: Record, group: str) -> Example:
    missing = [name for name in layout.needs if name not in record.values]
    if missing:
        present = ", ".join(record.values) or "none"
        raise DataError(
            f"{record.where}: no column '{missing[0]}'; present: {present}; all records of a file have one layout, "
            f"here {layout}."
        )
    with placed(record.where):
        return layout.build(Fields(record, {}), group)
