"""Turns of conversations as files have them: who says what, whether it is learnt, and what is not read at all.

The content of a turn is a text or a list of parts, of which texts are read.
"""

from collections.abc import Mapping
from typing import Any

from fedloom.base.errors import DataError
from fedloom.contracts.examples import Role, Shown, Turn

__all__ = ["check_text", "read_turns", "shape"]


def check_text(value: Any, where: str) -> str:
    """Return a value that is text; null, NaN, any other type and half a surrogate pair are refused."""
    if not isinstance(value, str):
        found = "null" if value is None else f"{value!r}" if isinstance(value, float) else type(value).__name__
        raise DataError(f"{where}: found {found}, allowed is text.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: character {error.start} is half a surrogate pair, allowed is text.") from error
    return value


def read_turns(
    value: Any, where: str, *, role: str, text: str, roles: Mapping[str, Role], answers: bool = True
) -> list[Turn]:
    """Return the turns of a list of {role: ..., text: ...} objects, the two keys named by the arguments.

    Where there are `answers` to be learnt one of them has to be.
    """
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: found {type(value).__name__}, allowed is a list of turns.")
    turns: list[Turn] = []
    for index, item in enumerate(value):
        place = f"{where}[{index}]"
        if not isinstance(item, dict) or role not in item or text not in item:
            raise DataError(f"{place}: found {shape(item)}, allowed is an object with '{role}' and '{text}'.")
        spoken_by = check_text(item[role], f"{place}.{role}")
        if spoken_by not in roles:
            raise DataError(f"{place}: '{role}' is {spoken_by!r}, allowed are {', '.join(roles)}.")
        kind = Turn if _is_learnt(item, place, roles[spoken_by]) else Shown
        turns.append(kind(roles[spoken_by], _content(item[text], f"{place}.{text}")))
    spoken = [turn for turn in turns if turn.role == "assistant"]
    if answers and spoken and not any(turn.learnt for turn in spoken):
        raise DataError(f"{where}: no answer is learnt (weight = 0 or train = false of each); leave the record out.")
    return turns


_OF_TURNS = ("tool_calls", "function_call", "tool_call_id", "images", "image", "audio", "videos", "refusal")
"""Keys of a turn that change what is said; reasoning beside the answer is passed over, as templates pass it over."""


def _is_learnt(item: Mapping[str, Any], place: str, role: Role) -> bool:
    """Return whether a turn is learnt where it is an answer; keys that say more than role and text are refused."""
    said = [key for key in _OF_TURNS if item.get(key) and (key, role) != ("tool_call_id", "tool")]
    if said:
        raise DataError(f"{place}: found '{said[0]}', which is not read; allowed are turns of text alone.")
    for key, learnt in (("weight", {0: False, 1: True}), ("train", {False: False, True: True})):
        value = item.get(key)
        if value is None:
            continue
        if value not in learnt or isinstance(value, bool) is not (key == "train"):
            raise DataError(f"{place}: '{key}' is {value!r}, allowed are {' and '.join(map(repr, learnt))}.")
        if not learnt[value]:
            return False
    return True


def _content(value: Any, where: str) -> str:
    """Return the text of a turn: as it is, or the text parts of a list one after another."""
    if not isinstance(value, list):
        return check_text(value, where)
    texts: list[str] = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise DataError(f"{where}[{index}]: found a part of type {kind!r}, allowed are parts of text.")
        texts.append(check_text(part.get("text"), f"{where}[{index}].text"))
    return "".join(texts)


def shape(item: Any) -> str:
    """Return what was found in place of an object of another kind."""
    return f"the keys {', '.join(map(str, item)) or 'none'}" if isinstance(item, dict) else type(item).__name__
