"""Verifying a built data set: every file is what its card says, and so is the card itself."""

import json
from pathlib import Path
from typing import Any

from fedloom.base.errors import DataError, MissingFileError
from fedloom.base.files import file_sha256
from fedloom.data.build.building import CARD, FORMAT, card_digest
from fedloom.data.build.upstream import Upstream
from fedloom.data.records import parse_json, read_text

__all__ = ["read_card", "verify"]


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of a built data set; a folder without one, or a card that was changed, is refused."""
    path = folder / CARD
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; give a folder that `fedloom data build` has made.")
    card = parse_json(read_text(path), str(path))
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("outputs"), dict):
        raise DataError(f"{path}: is no card of a build of format {FORMAT}; build the data set anew.")
    if card.get("card_sha256") != card_digest(card):
        raise DataError(f"{path}: has been changed since the build; build the data set anew.")
    return card


def verify(folder: Path, upstream: Upstream | None = None) -> dict[str, Any]:
    """Return the card of a built data set all of whose files have the recorded checksums.

    With `upstream`, its files are compared with those that the set was built from, too. Raises MissingFileError or
    DataError naming the first file that differs.
    """
    card = read_card(folder)
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
