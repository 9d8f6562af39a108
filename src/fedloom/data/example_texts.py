"""The two texts of an example: what was asked and what was answered."""

import re

from fedloom.contracts.examples import Chat, Example, Preference

__all__ = ["instruction", "response"]

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
