"""The file layouts of FedLLM-Bench (arXiv 2406.04845): one JSON object {user: [record, ...]}, or a list of records.

Records are of one layout throughout: `instruction` and `response`; `conversations` (ShareGPT turns); or `prompt`,
`chosen`, `rejected`. File order is kept: it is the order of the clients and of each client's records. The prompt of a
preference record is already templated in the released file; train it with a template that adds nothing.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fedloom.contracts import Source
from fedloom.data.sources._forms import Fields, conversation
from fedloom.data.sources._records import Record, parse_json, read_text
from fedloom.errors import ConfigError, DataError, MissingFileError
from fedloom.examples import Chat, Example, Preference, Turn, chat
from fedloom.plugin import Range, plugin

__all__ = ["FedllmBench"]

_log = logging.getLogger(__name__)

_LICENCES = {"aya": "Apache-2.0", "chatbot": "CC BY-NC 4.0", "wildchat": "ODC-BY"}


def _instruction(fields: Fields, client: str) -> Example:
    return chat(fields.text("instruction"), fields.text("response"), client=client)


def _dialogue(fields: Fields, client: str) -> Example:
    return Chat(conversation(fields, {}).turns, {"client": client})


def _preference(fields: Fields, client: str) -> Example:
    prompt = (Turn("user", fields.text("prompt")),)
    return Preference(prompt, fields.text("chosen"), fields.text("rejected"), {"client": client})


_LAYOUTS: Mapping[tuple[str, ...], Callable[[Fields, str], Example]] = {
    ("instruction", "response"): _instruction,
    ("conversations",): _dialogue,
    ("prompt", "chosen", "rejected"): _preference,
}


@plugin("fedllm_bench")
class FedllmBench(Source):
    """The released files, unchanged; the tag `client` is the user, or `local` for the records of a flat list."""

    path: str = ""
    clients: Annotated[int, Range(0)] = 0
    """How many users to take, the first of the file; 0 takes all."""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return all examples as the split `train`; refusals name file, user and record (counted from 1)."""
        users = self._users()
        if self.clients > len(users):
            raise DataError(
                f"{self.path}: found {len(users)} users, asked for clients = {self.clients}; ask for fewer."
            )
        taken = list(users.items())[: self.clients or None]
        records = [(user, record) for user, found in taken for record in _records(found, f"{self.path}, user '{user}'")]
        _log.info("%s: %d users, licence: %s", self.path, len(taken), _licence(self.path))
        build = _layout(records[0][1])
        return {"train": [_example(build, record, user) for user, record in records]}

    def _users(self) -> dict[str, Any]:
        path = Path(self.path)
        if not self.path:
            raise ConfigError("path: found none; give the path of a JSON file in a layout of FedLLM-Bench.")
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file; give the path of a JSON file in a layout of FedLLM-Bench.")
        whole = parse_json(read_text(path), self.path)
        users = {"local": whole} if isinstance(whole, list) else whole
        if not isinstance(users, dict) or not users:
            raise DataError(f"{path}: found no user, allowed is {{user: [records]}} or a list of records.")
        return users


def _records(found: Any, where: str) -> list[Record]:
    if not isinstance(found, list) or not found:
        raise DataError(f"{where}: found {'no record' if found == [] else type(found).__name__}, allowed is a list.")
    records: list[Record] = []
    for number, values in enumerate(found, start=1):
        if not isinstance(values, dict):
            raise DataError(f"{where}, record {number}: found {type(values).__name__}, allowed is an object.")
        records.append(Record(f"{where}, record {number}", values))
    return records


def _layout(record: Record) -> Callable[[Fields, str], Example]:
    fitting = [build for needs, build in _LAYOUTS.items() if record.values.keys() >= set(needs)]
    if len(fitting) != 1:
        allowed = "; ".join(", ".join(needs) for needs in _LAYOUTS)
        found = ", ".join(record.values) or "none"
        raise DataError(f"{record.where}: found the fields {found}, allowed is exactly one of the layouts {allowed}.")
    return fitting[0]


def _example(build: Callable[[Fields, str], Example], record: Record, user: str) -> Example:
    try:
        return build(Fields(record, {}), user)
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(record.where) else f"{record.where}: {text}") from error


def _licence(path: str) -> str:
    name = Path(path).name.lower()
    found = [licence for key, licence in _LICENCES.items() if key in name]
    return found[0] if found else "unknown; see where the file came from"
