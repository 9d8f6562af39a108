"""Which stretches of text are added tokens of a tokenizer, special ones among them: they are never split.

How a token behaves between letters tells nothing: the `>` at the end of a marker that a tokenizer does not know stays
whole there too, and generation would stop at the first one of an answer.
"""

from functools import lru_cache

from fedloom.contracts.language import Tokenizer

__all__ = ["end_of_text", "ends_with_special", "is_special"]


def end_of_text(tokenizer: Tokenizer) -> str | None:
    """Return the text of the tokenizer's end token, None if it has none."""
    token = tokenizer.eos_token
    return token if isinstance(token, str) else None


def is_special(text: str, tokenizer: Tokenizer) -> bool:
    """Return whether the text is the end token or one that was added to the tokenizer, special or not."""
    return text == end_of_text(tokenizer) or text in _added(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _added(tokenizer: Tokenizer, _size: int) -> frozenset[str]:
    """Return the texts of all added tokens, listed once for each size of the vocabulary."""
    return frozenset(token.content for token in tokenizer.added_tokens_decoder.values())


def ends_with_special(text: str, tokenizer: Tokenizer) -> bool:
    """Return whether the text ends with a special token."""
    end = end_of_text(tokenizer)
    if end is not None and text.endswith(end):
        return True
    if not text or not tokenizer.is_fast:
        return False
    last = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens[-1]
    return text.endswith(last) and is_special(last, tokenizer)
