"""No template: turns as they stand, one after another, an answer ended by the end token.

For records whose prompt is text with its template already in it, such as the preference files of FedLLM-Bench, and for
base models that continue text.
"""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece, Template
from fedloom.contracts.language import Tokenizer
from fedloom.text.templates._format import Format

__all__ = ["Bare"]

_FORMAT = Format(user="{text}", assistant="{text}")


@plugin("bare")
class Bare(Template):
    """The texts of the turns and nothing between them."""

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; a tokenizer without an end token is refused."""
        return _FORMAT.pieces(turns, tokenizer)
