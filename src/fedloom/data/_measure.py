"""What partitions and the card measure of an example: its text, its length and its tags."""

from fedloom.base.errors import DataError
from fedloom.contracts.examples import Chat, Document, Example

__all__ = ["length", "tag_of", "text_of"]


def text_of(example: Example) -> str:
    """Return all text of an example, its parts on lines of their own."""
    if isinstance(example, Document):
        return example.text
    if isinstance(example, Chat):
        return "\n".join(turn.text for turn in example.turns)
    return "\n".join([*(turn.text for turn in example.prompt), example.chosen, example.rejected])


def length(example: Example) -> int:
    """Return the length of an example's text in characters (no tokenizer is known here)."""
    return len(text_of(example))


def tag_of(example: Example, tag: str, index: int) -> str:
    """Return a tag of the example at `index`; a missing one is refused with those present."""
    if tag not in example.tags:
        present = ", ".join(sorted(example.tags)) or "none"
        raise DataError(f"example {index} has no tag '{tag}'; present: {present}; set it in the source's `tags`.")
    return example.tags[tag]
