r"""The ChatML template: each turn between `<|im_start|>` with its role and `<|im_end|>`.

Source: OpenAI's Chat Markup Language
(https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md). The end token is `<|im_end|>`, whatever the
tokenizer's own end token is; a tokenizer that does not know it is refused.

Deviations: the line break after the last `<|im_end|>` is left out, there is nothing to learn from it; no system turn
is put in where the conversation has none.
"""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece, Template
from fedloom.contracts.language import Tokenizer
from fedloom.text.templates._format import Format

__all__ = ["ChatML"]

_FORMAT = Format(
    system="<|im_start|>system\n{text}<|im_end|>\n",
    user="<|im_start|>user\n{text}<|im_end|>\n",
    assistant="<|im_start|>assistant\n{text}",
    separator="\n",
    end="<|im_end|>",
)


@plugin("chatml")
class ChatML(Template):
    """Turns between start and end tokens."""

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; a tokenizer without `<|im_end|>` is refused."""
        return _FORMAT.pieces(turns, tokenizer)
