"""Building and verifying: rows to users, users to splits, splits to files and a card that says how each came to be.

Nothing depends on the clock, on the machine or on the order in which users occur: two builds of the same input are the
same bytes. The rows are read twice, first to count users, then to keep the records of those chosen.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.base.errors import DataError, MissingFileError, RunError
from fedloom.base.files import atomic_folder, file_sha256, refuse_filled, write_atomic
from fedloom.base.rng import python_random
from fedloom.data.build.recipes import RECIPES, DatasetName, Recipe
from fedloom.data.build.splitting import Entry, Splits, split_users
from fedloom.data.build.upstream import Upstream
from fedloom.data.records import Record, parse_json, read_text
from fedloom.data.turns import check_text

__all__ = ["build", "verify"]

_CARD = "build.json"
_FORMAT = 1
_ROWS, _REPEATED = "rows", "repeated"


def build(
    name: DatasetName, upstream: Upstream, out: Path, *, min_records: int | None, clients: int | None, seed: int
) -> dict[str, Any]:
    """Write the data set as a folder and return its card.

    `min_records` and `clients` take the place of the recipe's (clients = 0 keeps all users). Raises DataError if
    nothing is left, RunError if `out` is there already and not empty, or in the folder that is read.
    """
    if upstream.folder and out.resolve().is_relative_to(upstream.folder.resolve()):
        raise RunError(f"{out}: is in the folder {upstream.folder} that is read; choose an --out outside --from.")
    refuse_filled(out)
    recipe = RECIPES[name]
    least, most = min_records or recipe.min_records, recipe.clients if clients is None else clients
    tally = Counter[str]()
    sizes = Counter(user for user, _ in _kept(recipe, upstream, tally))
    _refuse_nothing(recipe, tally, name)
    users = _collect(recipe, upstream, _choose(sizes, tally[_ROWS], least, most, name))
    splits = split_users(users, recipe.question, seed)
    files = {split: _by_user(part) for split, part in splits.items()}
    files["common_test"] = _common_test(recipe, splits, seed)
    texts = {f"{file}.json": _text(content) for file, content in files.items()}
    card = {
        "format": _FORMAT,
        "dataset": name,
        "seed": seed,
        "upstream": {"name": recipe.upstream, "licence": recipe.licence, "inputs": upstream.identity()},
        "filters": _filters(recipe, tally, sizes, (least, min_records is not None), (most, clients is not None)),
        "users": {
            "found": len(sizes),
            "kept": len(users),
            "without_test": sorted(users.keys() - splits["test"].keys()),
        },
        "rows": {"read": tally[_ROWS], "kept": sum(map(len, users.values()))},
        "released": {"users": recipe.clients, "records": recipe.released_records},
        "splits": {split: _sizes(part) for split, part in splits.items()},
        "outputs": {file: hashlib.sha256(text.encode()).hexdigest() for file, text in texts.items()},
    }
    with atomic_folder(out) as folder:
        for file, text in texts.items():
            write_atomic(folder / file, text)
        write_atomic(folder / _CARD, _text(card | {"card_sha256": _digest_of(card)}))
    return card


def _digest_of(card: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's content, its own entry left out."""
    content = {key: value for key, value in card.items() if key != "card_sha256"}
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _kept(recipe: Recipe, upstream: Upstream, tally: Counter[str]) -> Iterator[tuple[str, Entry]]:
    """Yield (user, entry) of the rows that pass the filters, each record of a user once.

    Rows, the first filter that each fails, and repetitions are counted.
    """
    seen: set[bytes] = set()
    for row in upstream.rows(recipe.columns):
        failed = _failed(recipe, row)
        tally[_ROWS] += 1
        if failed is None:
            record = recipe.record(row)
            user = check_text(row.values[recipe.user], f"{row.where}, column '{recipe.user}'")
            digest = _digest(user, record)
            if digest not in seen:
                seen.add(digest)
                yield user, (record, recipe.common(record, row.values))
                continue
            failed = _REPEATED
        tally[failed] += 1


def _failed(recipe: Recipe, row: Record) -> str | None:
    try:
        return next((rule.name for rule in recipe.rules if not rule.keeps(row.values)), None)
    except DataError as error:
        raise DataError(f"{row.where}, {error}") from error


def _digest(user: str, record: Mapping[str, Any]) -> bytes:
    """Return by what a user's record is known again: its texts, as the same may be labelled with two languages."""
    texts = {key: value for key, value in record.items() if key != "language"}
    return hashlib.sha256(json.dumps([user, texts], ensure_ascii=False).encode()).digest()[:16]


def _refuse_nothing(recipe: Recipe, tally: Mapping[str, int], name: str) -> None:
    """Refuse a set without rows, and one whose rows the filters drop altogether."""
    if not tally[_ROWS]:
        raise DataError(f"{name}: found no row, the files are empty; give the files of {recipe.upstream}.")
    if sum(tally[rule.name] for rule in recipe.rules) == tally[_ROWS]:
        most = max(recipe.rules, key=lambda rule: tally[rule.name])
        raise DataError(
            f"{name}: the filters dropped all {tally[_ROWS]} rows, most of them, {tally[most.name]}, the filter "
            f"'{most.name}' ({most.says}); give the files of {recipe.upstream}."
        )


def _choose(sizes: Mapping[str, int], n_rows: int, least: int, most: int, name: str) -> set[str]:
    """Return the users with enough records; of too many those with the most, equal ones by name."""
    enough = sorted((user for user, size in sizes.items() if size >= least), key=lambda user: (-sizes[user], user))
    if not enough:
        raise DataError(
            f"{name}: found no user with {least} records, but {len(sizes)} users in {n_rows} rows (the largest has "
            f"{max(sizes.values(), default=0)}); give the whole set, or lower --min-records."
        )
    return set(enough[: most or None])


def _collect(recipe: Recipe, upstream: Upstream, chosen: set[str]) -> dict[str, list[Entry]]:
    """Return the distinct records of the chosen users, users by name, records in the order of the rows."""
    users: dict[str, list[Entry]] = {user: [] for user in sorted(chosen)}
    for user, entry in _kept(recipe, upstream, Counter()):
        if user in users:
            users[user].append(entry)
    return users


def _by_user(part: Mapping[str, Sequence[Entry]]) -> dict[str, list[dict[str, Any]]]:
    return {user: [record for record, _ in entries] for user, entries in part.items()}


def _sizes(part: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    return {"users": len(part), "records": sum(map(len, part.values()))}


def _common_test(recipe: Recipe, splits: Splits, seed: int) -> Any:
    """Return a test set in the released layout, drawn from users' test records: none of it is trained on."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entries in splits["test"].values():
        for group, question in (asked for _, asked in entries if asked is not None):
            groups.setdefault(group, []).append(question)
    drawn = {
        group: python_random(seed, "common test", group).sample(found, min(recipe.common_size, len(found)))
        for group, found in sorted(groups.items())
    }
    return drawn.get("", []) if "" in drawn or not drawn else drawn


def _filters(
    recipe: Recipe, tally: Mapping[str, int], sizes: Mapping[str, int], least: tuple[int, bool], most: tuple[int, bool]
) -> list[dict[str, Any]]:
    """Return what each filter has dropped; `least` and `most` come with whether they were given, not the recipe's."""
    small = [size for size in sizes.values() if size < least[0]]
    left = max(0, len(sizes) - len(small) - most[0]) if most[0] else 0

    def told(name: str, says: str, origin: str, **dropped: int) -> dict[str, Any]:
        return {"name": name, "says": says, "origin": origin, **dropped}

    chosen = f"the {most[0]} with the most records" if most[0] else "all"
    origins = "given" if least[1] else recipe.min_origin, "given" if most[1] else "unverified"
    return [
        *(told(rule.name, rule.says, rule.origin, rows_dropped=tally[rule.name]) for rule in recipe.rules),
        told(_REPEATED, "no record of a user occurs twice", "chosen", rows_dropped=tally[_REPEATED]),
        told(
            "records of a user", f"at least {least[0]}", origins[0], users_dropped=len(small), rows_dropped=sum(small)
        ),
        told("users", chosen, origins[1], users_dropped=left),
    ]


def _read_card(folder: Path) -> dict[str, Any]:
    """Return the card of a built data set; a folder without one, or a card that was changed, is refused."""
    path = folder / _CARD
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; give a folder that `fedloom data build` has made.")
    card = parse_json(read_text(path), str(path))
    if not isinstance(card, dict) or card.get("format") != _FORMAT or not isinstance(card.get("outputs"), dict):
        raise DataError(f"{path}: is no card of a build of format {_FORMAT}; build the data set anew.")
    if card.get("card_sha256") != _digest_of(card):
        raise DataError(f"{path}: has been changed since the build; build the data set anew.")
    return card


def verify(folder: Path, upstream: Upstream | None = None) -> dict[str, Any]:
    """Return the card of a built data set all of whose files have the recorded checksums.

    With `upstream`, its files are compared with those that the set was built from, too. Raises MissingFileError or
    DataError naming the first file that differs.
    """
    card = _read_card(folder)
    for file, recorded in card["outputs"].items():
        path = folder / file
        if not path.is_file():
            raise MissingFileError(f"{path}: is missing; build the data set anew.")
        found = file_sha256(path)
        if found != recorded:
            raise DataError(
                f"{path}: has SHA-256 {found[:12]}, the build recorded {recorded[:12]}: it has been changed; build the "
                "data set anew."
            )
    if upstream is not None and upstream.identity() != card["upstream"]["inputs"]:
        raise DataError(
            f"{folder}: was built from other input: {json.dumps(card['upstream']['inputs'])[:200]}; give the set that "
            "it was built from."
        )
    return card
