"""The layouts of held-out instructions: FedLLM-Bench's three test sets and any list of like records.

    {"Spanish": [{"instruction": ..., "reference": ...}, ...], ...}     Aya: by language
    [{"instruction": ..., "language": ...}, ...]                        WildChat
    [{"instruction": ...}, ...]                                         Chatbot

A record of a list may have `reference`, `language` and `category`; other fields are kept nowhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from fedloom.contracts.evaluation import Question
from fedloom.judged.exams._files import Record, Wanted, layout_of, read, text_of

__all__ = ["LAYOUTS", "items"]

LAYOUTS = (
    "a JSON list of {instruction, reference?, language?, category?} or an object {language: [{instruction, "
    "reference?}]}"
)


def items(path: str, wanted: Wanted) -> list[Question]:
    """Return the questions of a file in its order; ids are places in the list, behind the language in an object."""
    found = read(path, wanted)
    if isinstance(found, dict) and found:
        return [
            _question(record, f"{language}/{index}", language, wanted, path)
            for language, group in found.items()
            for index, record in _numbered(group, found, wanted, path)
        ]
    return [_question(record, str(index), "", wanted, path) for index, record in _numbered(found, found, wanted, path)]


def _numbered(group: Any, whole: Any, wanted: Wanted, path: str) -> Iterator[tuple[int, Record]]:
    if not isinstance(group, list) or not group or not all(isinstance(record, dict) for record in group):
        raise wanted.wrong(path, layout_of(whole))
    yield from enumerate(group)


def _question(record: Record, name: str, language: str, wanted: Wanted, path: str) -> Question:
    where = f"{wanted.key}: {path}: record {name}"
    optional = {key: text_of(record, (key,), where) for key in ("reference", "language", "category") if record.get(key)}
    language = language or optional.get("language", "")
    references: Sequence[str] = [optional["reference"]] if "reference" in optional else []
    tags = {"language": language} if language else {}
    instruction = text_of(record, ("instruction",), where)
    return Question(name, (instruction,), optional.get("category", ""), tuple(references), tags)
