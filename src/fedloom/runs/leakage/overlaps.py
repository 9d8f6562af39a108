"""How much of its document each prepared pair says word for word, from what the first preparation has kept of pairs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedloom.base.files import file_name
from fedloom.contracts.examples import Example
from fedloom.synthesis.filters.leakage import longest_shared

__all__ = ["overlaps"]


def overlaps(folder: Path, given: Mapping[str, Sequence[Example]]) -> list[int]:
    """Return the words of the longest run that each kept pair shares with its passage; none where no pairs lie."""
    found: list[int] = []
    for client, documents in given.items():
        for file in sorted(folder.glob(f"prepared/0_*/{file_name(client)}/pairs.jsonl")):
            pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            for pair in (one for one in pairs if not one["reason"]):
                passage = documents[pair["document"]].text[pair["start"] : pair["stop"]]
                found.append(max(longest_shared(pair[part], passage) for part in ("instruction", "response")))
    return found
