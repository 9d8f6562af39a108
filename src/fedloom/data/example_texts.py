"""The texts of an example: what was asked, what was answered, and both as a record that can be read again."""

import re
from collections.abc import Sequence
from typing import Any

from fedloom.contracts.examples import Chat, Example, Preference, Turn

__all__ = ["instruction", "record_of", "response"]

# Released preference files hold prompts that are already in Alpaca's form.
_ALPACA = re.compile(r"### Instruction:\s*(.*?)\s*### Response:", re.DOTALL)


def instruction(example: Example) -> str:
    """Return the user's turns, without a frame in Alpaca's form; "" where nothing is asked."""
    text = "\n".join(turn.text for turn in example.prompt if turn.role == "user")
    framed = _ALPACA.search(text)
    return framed[1] if framed and isinstance(example, Preference) else text


def response(example: Example) -> str:
    """Return the assistant's turns, the chosen answer of a Preference, all text where nothing is asked."""
    if isinstance(example, Chat):
        return "\n".join(turn.text for turn in example.turns if turn.role == "assistant")
    return example.reference if example.prompt else example.text


def record_of(example: Example) -> dict[str, Any]:
    """Return an example as a record of form `messages`, `preference` or `text`, its tags as columns."""
    if isinstance(example, Chat):
        return {"messages": _messages(example.turns), **example.tags}
    if isinstance(example, Preference):
        pair = {"chosen": example.chosen, "rejected": example.rejected}
        return {"prompt": _messages(example.prompt), **pair, **example.tags}
    return {"text": example.text, **example.tags}


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]
