"""What happened to examples when they became tokens, in numbers that a run reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the package is listed to name its plug-ins; that must not load torch
    from fedloom.contracts import Encoded

__all__ = ["count"]


def count(encoded: Sequence[Encoded]) -> dict[str, int]:
    """Return the numbers of examples, tokens and supervised tokens, and how many examples lost something.

    `truncated`: the end was cut off, but something is left to learn. `prompts_too_long`: nothing is left to learn.
    `empty_answers`: an answer, or a document, is blank.
    """
    return {
        "examples": len(encoded),
        "tokens": sum(item.tokens_T.numel() for item in encoded),
        "supervised_tokens": sum(int(item.supervised_T.sum()) for item in encoded),
        "truncated": sum(item.truncated for item in encoded),
        "empty_answers": sum(item.empty_answer for item in encoded),
        "prompts_too_long": sum(item.prompt_too_long for item in encoded),
    }
