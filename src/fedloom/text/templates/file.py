r"""A template of the user's own, from a TOML file.

The file holds the keys of `Format`, strictly: `user` and `assistant` (both with `{text}`), and, if wanted, `preamble`,
`system`, `separator` and `end`. An example:

    preamble = "A talk.\n"
    user = "Q: {text}\n"
    assistant = "A: {text}"
    separator = "\n"
    end = "{eos}"
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from fedloom.base.config import build, read_toml
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece, Template
from fedloom.contracts.language import Tokenizer
from fedloom.text.templates._format import Format

__all__ = ["File"]


@plugin("file")
class File(Template):
    """What a TOML file says; the file is read once, when the run file is."""

    path: Path
    """The TOML file, from the working directory if not absolute."""

    def check(self) -> None:
        """Refuse a missing file, unknown or missing keys and patterns without `{text}`, before a model is loaded."""
        _ = self._format

    @cached_property
    def _format(self) -> Format:
        return build(Format, read_toml(self.path), str(self.path))

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; an end that is no special token of the tokenizer is refused."""
        return self._format.pieces(turns, tokenizer)

    def jinja(self, tokenizer: Tokenizer) -> str | None:
        """Return the format as a chat template."""
        return self._format.jinja(tokenizer)
