"""The two texts of an example: what was asked and what was answered."""

import re

from fedloom.contracts.examples import Chat, Document, Example, Turn

__all__ = ["instruction", "response"]

# Released preference files hold prompts that are already in Alpaca's form.
_ALPACA = re.compile(r"### Instruction:\s*(.*?)\s*### Response:", re.DOTALL)


def _of(turns: tuple[Turn, ...], role: str) -> str:
    return "\n".join(turn.text for turn in turns if turn.role == role)


def instruction(example: Example) -> str:
    """Return the user's turns, without a frame in Alpaca's form; nothing for a Document."""
    match example:
        case Chat(turns=turns):
            return _of(turns, "user")
        case Document():
            return ""
        case _:
            text = _of(example.prompt, "user")
            framed = _ALPACA.search(text)
            return framed[1] if framed else text


def response(example: Example) -> str:
    """Return the assistant's turns, the chosen answer of a Preference, the text of a Document."""
    match example:
        case Chat(turns=turns):
            return _of(turns, "assistant")
        case Document(text=text):
            return text
        case _:
            return example.chosen
