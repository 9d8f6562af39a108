"""Which stretches of text are special tokens of a tokenizer, so that they stay whole wherever they stand.

The tokenizer is asked to tokenise, because listing its special tokens is slow where it has hundreds.
"""

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["end_of_text", "ends_with_special", "is_special"]


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the text of the tokenizer's end token, None if it has none."""
    token = tokenizer.eos_token
    return token if isinstance(token, str) else None


def is_special(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the text is one token wherever it stands, even between letters."""
    if text == end_of_text(tokenizer):
        return True
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    backend = tokenizer.backend_tokenizer
    return backend.token_to_id(text) in backend.encode(f"a{text}a", add_special_tokens=False).ids


def ends_with_special(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the text ends with a special token."""
    end = end_of_text(tokenizer)
    if end is not None and text.endswith(end):
        return True
    if not text or not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    last = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens[-1]
    return text.endswith(last) and is_special(last, tokenizer)
