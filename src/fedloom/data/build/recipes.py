"""What each data set of FedLLM-Bench is made of: upstream set, user, filters, records, and what of it is published.

Every filter and threshold says where it comes from: `published` (arXiv 2406.04845 or its repository), `unverified`
(told second-hand, or inferred from published means), `chosen` (ours, to get whole records). The upstream selection is
published in words only: a build has the published layout and rules, not the released files' very records.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Literal

from fedloom.base.errors import DataError
from fedloom.data.records import Record
from fedloom.data.turns import check_text

__all__ = ["RECIPES", "DatasetName", "Origin", "Recipe", "RowFilter"]

DatasetName = Literal["aya", "chatbot_it", "chatbot_pa", "wildchat", "wildchat_multi"]
Origin = Literal["published", "unverified", "chosen"]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowFilter:
    """A rule that a row must fulfil; `keeps` raises DataError where a column is of a type it cannot judge."""

    name: str
    says: str
    origin: Origin
    keeps: Callable[[Values], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a data set is made from its upstream set."""

    upstream: str
    licence: str
    user: str
    """The column that names the user."""
    columns: tuple[str, ...]
    filters: tuple[RowFilter, ...]
    record: Callable[[Record], dict[str, Any]]
    """A kept row as a record of the layout."""
    min_records: int
    min_origin: Origin
    clients: int
    """Users of the published set; those with the most records are taken."""
    released_records: int
    common: Callable[[Mapping[str, Any], Values], tuple[str, dict[str, Any]] | None]
    """A test record as (group, record) of the released test set, or None if it lacks what is told there; the values are
    those of its row."""
    common_size: int
    """Records of the common test, per group."""
    question: Callable[[Mapping[str, Any]], str] = itemgetter("instruction")
    """What of a record must not repeat between training and test."""

    @property
    def rules(self) -> tuple[RowFilter, ...]:
        """All filters of rows: first that a user is named."""
        return (RowFilter("user", f"column '{self.user}' names a user", "chosen", _has(self.user)), *self.filters)


_LANGUAGES = "Standard Arabic, English, Simplified Chinese, Portuguese, Telugu, Russian, French, Spanish"
_PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{} \n\n### Response:"
)
_ROLES = {"user": "human", "assistant": "gpt"}


def _text(record: Record, value: Any, what: str) -> str:
    return check_text(value, f"{record.where}, {what}")


def _has(*columns: str) -> Callable[[Values], bool]:
    return lambda values: all(isinstance(values[name], str) and values[name].strip() for name in columns)


def _said(turns: Any) -> list[tuple[str, str]]:
    """Return the turns of a dialogue as (role, text); one of another shape, or with a turn of no text, has none."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return []
    said = [(str(turn.get("role")), turn.get("content") or "") for turn in turns]
    return said if all(isinstance(text, str) for _, text in said) else []


def _whole(turns: list[tuple[str, str]]) -> bool:
    """Return whether user and assistant alternate, beginning with the one and ending with the other, none silent."""
    expected = [("user", "assistant")[at % 2] for at in range(len(turns))]
    return (
        bool(turns)
        and len(turns) % 2 == 0
        and [role for role, _ in turns] == expected
        and all(text.strip() for _, text in turns)
    )


def _language(record: Record) -> dict[str, str]:
    """Return the field `language` of a record, which the released files lack; null or blank text makes none."""
    value = record.values["language"]
    language = "" if value is None else _text(record, value, "column 'language'")
    return {"language": language} if language.strip() else {}


def _aya(record: Record) -> dict[str, Any]:
    return {
        "instruction": _text(record, record.values["inputs"], "column 'inputs'"),
        "response": _text(record, record.values["targets"], "column 'targets'"),
        **_language(record),
    }


def _judged(record: Record) -> tuple[str, str, str]:
    """Return question, preferred and other answer of a comparison."""
    sides = {side: _said(record.values[f"conversation_{side[-1]}"]) for side in ("model_a", "model_b")}
    winner = record.values["winner"]
    other = "model_b" if winner == "model_a" else "model_a"
    texts = sides[winner][0][1], sides[winner][1][1], sides[other][1][1]
    for text in texts:
        _text(record, text, "a turn")
    return texts


def _preferred(record: Record) -> dict[str, Any]:
    question, chosen, _ = _judged(record)
    return {"instruction": question, "response": chosen}


def _pair(record: Record) -> dict[str, Any]:
    question, chosen, rejected = _judged(record)
    return {"prompt": _PROMPT.format(question), "chosen": f" {chosen}", "rejected": f" {rejected}"}


def _single(record: Record) -> dict[str, Any]:
    (_, question), (_, answer) = _said(record.values["conversation"])
    return {
        "instruction": _text(record, question, "turn 1"),
        "response": _text(record, answer, "turn 2"),
        **_language(record),
    }


def _several(record: Record) -> dict[str, Any]:
    turns = _said(record.values["conversation"])
    return {
        "conversations": [
            {"from": _ROLES[role], "value": _text(record, text, f"turn {at}")}
            for at, (role, text) in enumerate(turns, start=1)
        ],
        **_language(record),
    }


def _referenced(record: Mapping[str, Any], values: Values) -> tuple[str, dict[str, Any]]:
    group = str(values["language"]).replace(" ", "_")
    return group, {"instruction": record["instruction"], "reference": record["response"]}


def _bare(record: Mapping[str, Any], values: Values) -> tuple[str, dict[str, Any]]:
    return "", {"instruction": _said(values["conversation_a"])[0][1]}


def _with_language(record: Mapping[str, Any], values: Values) -> tuple[str, dict[str, Any]] | None:
    if "language" not in record:
        return None
    return "", {"instruction": _said(values["conversation"])[0][1], "language": record["language"]}


def _one_question(values: Values) -> bool:
    both = [_said(values[f"conversation_{side}"]) for side in "ab"]
    return all(len(turns) == 2 and _whole(turns) for turns in both) and both[0][0] == both[1][0]


_ARENA_FILTERS = (
    RowFilter(
        "winner", "one of the two answers is preferred", "published", lambda v: v["winner"] in ("model_a", "model_b")
    ),
    RowFilter("single turn", "one question and two answers to it, none empty", "published", _one_question),
)
_DIFFERENT = RowFilter(
    "different",
    "the two answers differ",
    "chosen",
    lambda v: _said(v["conversation_a"])[1:] != _said(v["conversation_b"])[1:],
)


def _harmless(values: Values) -> bool:
    if not isinstance(values["toxic"], bool):
        raise DataError(f"column 'toxic': found {values['toxic']!r:.30}, allowed is true or false; mend the row.")
    return not values["toxic"]


_HARMLESS = RowFilter("not toxic", "not flagged as toxic", "chosen", _harmless)


def _turns(least: int, most: int) -> Callable[[Values], bool]:
    return lambda v: least <= len(_said(v["conversation"])) // 2 <= most and _whole(_said(v["conversation"]))


_ARENA = partial(
    Recipe,
    upstream="lmsys/chatbot_arena_conversations",
    licence="prompts CC BY 4.0, answers CC BY-NC 4.0",
    user="judge",
    columns=("judge", "winner", "conversation_a", "conversation_b"),
    min_origin="unverified",
    common=_bare,
    common_size=50,
)
_WILDCHAT = partial(
    Recipe,
    upstream="allenai/WildChat-1M",
    licence="ODC-BY",
    user="hashed_ip",
    columns=("hashed_ip", "conversation", "language", "toxic"),
    min_records=10,
    min_origin="chosen",
    common=_with_language,
    common_size=50,
)

RECIPES: Mapping[DatasetName, Recipe] = {
    "aya": Recipe(
        upstream="CohereForAI/aya_dataset",
        licence="Apache-2.0",
        user="user_id",
        columns=("user_id", "inputs", "targets", "language"),
        filters=(
            RowFilter(
                "language", f"one of {_LANGUAGES}", "published", lambda v: v["language"] in _LANGUAGES.split(", ")
            ),
            RowFilter("not empty", "question and answer hold text", "chosen", _has("inputs", "targets")),
        ),
        record=_aya,
        min_records=100,
        min_origin="unverified",
        clients=38,
        released_records=25_513,
        common=_referenced,
        common_size=20,
    ),
    "chatbot_it": _ARENA(
        filters=_ARENA_FILTERS, record=_preferred, min_records=10, clients=237, released_records=6_166
    ),
    "chatbot_pa": _ARENA(
        filters=(*_ARENA_FILTERS, _DIFFERENT),
        record=_pair,
        question=itemgetter("prompt"),
        min_records=5,
        clients=747,
        released_records=9_508,
    ),
    "wildchat": _WILDCHAT(
        filters=(
            RowFilter("single turn", "one question and its answer, none empty", "published", _turns(1, 1)),
            _HARMLESS,
        ),
        record=_single,
        clients=100,
        released_records=52_703,
    ),
    "wildchat_multi": _WILDCHAT(
        filters=(
            RowFilter(
                "several turns", "two questions or more, all answered, none empty", "published", _turns(2, 10**6)
            ),
            _HARMLESS,
        ),
        record=_several,
        question=lambda record: record["conversations"][0]["value"],
        clients=50,
        released_records=15_406,
    ),
}
