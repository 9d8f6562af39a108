"""Which stretches of text are special tokens of a tokenizer, so that they stay whole wherever they stand."""

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["end_of_text", "ends_with_special", "is_special"]


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the text of the tokenizer's end token, None if it has none."""
    token = tokenizer.eos_token
    return token if isinstance(token, str) else None


def is_special(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the text is one special token."""
    return text == end_of_text(tokenizer) or text in _added(tokenizer)


def ends_with_special(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the text ends with a special token."""
    token = end_of_text(tokenizer)
    return (token is not None and text.endswith(token)) or text.endswith(_added(tokenizer))


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    # Slower by far than the comparison with the end token where a tokenizer has hundreds of these, hence tried last.
    return tuple(tokenizer.added_tokens_encoder) if isinstance(tokenizer, PreTrainedTokenizerFast) else ()
