"""The Vicuna template, version 1.1, as OpenFedLLM publishes it and FastChat writes it over several turns.

Sources: OpenFedLLM (Ye et al., 2024, https://arxiv.org/abs/2402.06954); FastChat's conversation `vicuna_v1.1`
(https://github.com/lm-sys/FastChat, style ADD_COLON_TWO): a blank after a question, the end token and nothing else
after an answer. A prompt ends with the colon of `ASSISTANT:`. A system turn takes the place of the opening sentences,
as in FastChat.

Deviations: none.
"""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece, Template
from fedloom.contracts.language import Tokenizer
from fedloom.text.templates._format import Format

__all__ = ["Vicuna"]

_FORMAT = Format(
    preamble=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    ),
    system="{text} ",
    user="USER: {text}",
    assistant=" ASSISTANT: {text}",
)


@plugin("vicuna")
class Vicuna(Template):
    """A transcript on one line, USER: and ASSISTANT: in turn."""

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; a tokenizer without an end token is refused."""
        return _FORMAT.pieces(turns, tokenizer)
