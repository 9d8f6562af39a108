"""The Alpaca template, byte by byte as OpenFedLLM publishes it for one instruction and its response.

Source: OpenFedLLM (Ye et al., 2024, https://arxiv.org/abs/2402.06954), after Stanford Alpaca's form without input.
The instruction is followed by one blank. A prompt ends with the colon of `### Response:`; the blank after it belongs
to the answer, hence is learnt.

Deviations: the source knows neither system turns nor second questions. Here a system turn takes the place of the first
sentence pair, and a further question follows the end token after an empty line.
"""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece, Template
from fedloom.contracts.language import Tokenizer
from fedloom.text.templates._format import Format

__all__ = ["Alpaca"]

_FORMAT = Format(
    preamble=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    ),
    system="{text}\n\n",
    user="### Instruction:\n{text} \n\n",
    assistant="### Response: {text}",
    separator="\n\n",
)


@plugin("alpaca")
class Alpaca(Template):
    """Instruction and response under headings."""

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; a tokenizer without an end token is refused."""
        return _FORMAT.pieces(turns, tokenizer)
