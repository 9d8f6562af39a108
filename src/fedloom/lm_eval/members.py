"""The members of one of lm-eval's groups and tags, and which rows of a local file belong to which.

A row names its member by the member's own name, or by what lm-eval calls dataset_name. Members that lm-eval gives the
same part of the same data share such rows; a dataset_name of several data is no name of any.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from fedloom.base.errors import ConfigError, DataError, suggest
from fedloom.data.records import Record
from fedloom.lm_eval.local_data import LocalData

__all__ = ["leaves_of", "named_leaves", "rows_by_member"]

_SHOWN = 5  # names in a message
_LABELS = {"task", "task_alias", "group", "group_alias", "weight"}  # keys of a member that change no question


def leaves_of(index: Mapping[str, Any], name: str) -> list[str]:
    """Return the single tasks of a task, a tag or a group of lm-eval's index.

    A group that writes members down itself, or names one task with several settings, is refused: nothing but the name
    of a task tells its rows and its settings.
    """
    found = list(_leaves(index, name, (name,)))
    names = list(dict.fromkeys(leaf for leaf, _ in found))
    changed = [leaf for leaf, settings in found if settings]
    if not names or any(leaf not in index for leaf in names) or len(changed) > len(set(changed)):
        raise ConfigError(
            f"task '{name}': lm-eval's group defines its members itself (found {_few(names) or 'none'}), allowed with "
            "local rows are members that are tasks of their own; ask such tasks one by one."
        )
    return names


def named_leaves(index: Mapping[str, Any], name: str) -> list[str]:
    """Return those members of a task, a tag or a group that are tasks of the index."""
    return [leaf for leaf in dict.fromkeys(leaf for leaf, _ in _leaves(index, name, (name,))) if leaf in index]


def _leaves(index: Mapping[str, Any], name: str, above: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Give the name of each leaf, also of one that the index lacks, and whether its group changes its settings."""
    entry = index[name]
    if entry.kind.name == "TAG":
        yield from ((leaf, False) for leaf in sorted(entry.tags) if leaf in index)
    elif entry.kind.name != "GROUP":
        yield name, False
    else:
        yield from _of_group(index, entry.cfg.get("task"), above)


def _of_group(index: Mapping[str, Any], children: Any, above: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    for child in children if isinstance(children, list) else [children]:
        settings: dict[str, Any] = child if isinstance(child, dict) else {"task": child}
        named = settings.get("group", settings.get("task"))
        if named in above:
            continue  # a group within itself adds nothing
        if isinstance(named, str) and named in index:
            changed = bool(settings.keys() - _LABELS)
            yield from ((leaf, changed or inner) for leaf, inner in _leaves(index, named, (*above, named)))
        elif isinstance(settings.get("task"), list):  # a group within the group
            yield from _of_group(index, settings["task"], above)
        else:
            yield str(named or "one without a name"), True


def rows_by_member(
    name: str, data: LocalData, column: str, members: Mapping[str, Mapping[str, Any]]
) -> dict[str, LocalData]:
    """Return the rows of each member, of which the settings are given; members without a question are left out."""
    close = _names(members)
    questions: dict[str, list[Record]] = {}
    shots: dict[str, list[Record]] = {}
    for rows, parts in ((data.questions, questions), (data.shots, shots)):
        for record in rows:
            value = record.values.get(column)
            leaves = [str(value)] if value in tuple(members) else close.get(_plain(value), [])
            if value is None or not leaves:
                raise _unknown(name, record, column, members, close)
            for leaf in _of_one_data(record, column, leaves, members):
                parts.setdefault(leaf, []).append(record)
    return {
        leaf: LocalData(tuple(questions[leaf]), tuple(shots.get(leaf, ())), data.sha256)
        for leaf in members
        if leaf in questions
    }


def _names(members: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Sequence[str]]:
    """Return members by name and by dataset_name, in small letters; a member's name goes before a dataset_name."""
    own: dict[str, list[str]] = {}
    shared: dict[str, list[str]] = {}
    for leaf, settings in members.items():
        own.setdefault(_plain(leaf), []).append(leaf)
        if settings.get("dataset_name") is not None:
            shared.setdefault(_plain(settings["dataset_name"]), []).append(leaf)
    return shared | own


def _of_one_data(
    record: Record, column: str, leaves: Sequence[str], members: Mapping[str, Mapping[str, Any]]
) -> Sequence[str]:
    """Return members that share a dataset_name, or refuse them where it is not one and the same split of one data."""
    keys = ("dataset_path", "dataset_name", "test_split", "validation_split")
    if len({tuple(str(members[leaf].get(key)) for key in keys) for leaf in leaves}) == 1:
        return leaves
    raise DataError(
        f"{record.where}: {column}: found {record.values[column]!r}, by which lm-eval knows different data, of "
        f"{_few(leaves)}; give the name of the one that the row belongs to, or ask these one by one."
    )


def _unknown(name: str, record: Record, column: str, members: Iterable[str], close: Iterable[str]) -> DataError:
    value = record.values.get(column)
    near = suggest(_plain(value), close).partition(" Known:")[0]
    hint = f" {near}" if value is not None and near.startswith("Did") else ""
    found = f"no column '{column}'" if value is None else f"{column}: found {value!r}"
    return DataError(
        f"{record.where}: {found}.{hint} It names the member of '{name}' that a row belongs to, allowed are "
        f"{_few(members)}; name it in every row, or ask the members one by one."
    )


def _plain(value: Any) -> str:
    return str(value).lower().replace("&", "and").replace(" ", "_")


def _few(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(islice(found, _SHOWN)) + more
