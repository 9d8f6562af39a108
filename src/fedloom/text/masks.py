"""From pieces of text to tokens whose supervision is known by construction.

Each stretch of text is tokenised for itself, so a token never lies half in a prompt and half in an answer, and the
tokens of a prompt are exactly those with which the training tokens begin. Tokenizers treat the beginning of a text
apart (SentencePiece puts a blank before it); a stretch that continues a text is therefore tokenised after a short
sentinel, whose tokens are cut off again. If they do not come off cleanly the next sentinel is tried. The first one is
the special token that stands before the stretch, if one does: some tokenizers begin anew after it, blank and all, and
the model has seen the answers so.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise

from tokenizers import Tokenizer as Backend

from fedloom.base.errors import ModelError
from fedloom.contracts.language import Piece, Tokenizer

__all__ = ["begin_text", "pieces_to_tokens"]

# A line break is what most often stands before an answer, and tokenizers rarely join it to what follows, save to
# another line break; a digit and a letter are there for those that do, or that do not know line breaks.
_SENTINELS = ("\n", "0", "a", ".")
_LONGEST_TOKEN = 64  # characters, of nearly all: where tokens are longer the whole text is taken
_SPARE = 16  # tokens behind those that are kept, which are other ones where a text is cut


def pieces_to_tokens(
    pieces: Sequence[Piece], tokenizer: Tokenizer, *, begin: bool = True, most: int = 0
) -> tuple[list[int], list[bool]]:
    """Return the token ids of the joined pieces, and for each whether its piece is supervised.

    With `begin`, what the tokenizer by its own habit puts before a text (a begin token) comes first, unsupervised,
    unless the text begins with it already; what it puts after a text is left out, an end token is the template's
    business. The very first token is never supervised, nothing predicts it.

    Whoever keeps the first `most` tokens says so: of a text without end more are made than that, but not all.
    """
    backend = _backend(tokenizer)
    spans = [(learn, "".join(piece.text for piece in group)) for learn, group in groupby(pieces, _is_supervised)]
    learn, text = spans[0]
    first = _first_ids(backend, text, most)
    habit = _begin_tokens(backend) if begin else []
    tokens = first if first[: len(habit)] == habit else habit + first
    supervised = [False] * (len(tokens) - len(first)) + [learn] * len(first)
    for (_, before), (learn, text) in pairwise(spans):
        if most and len(tokens) > most:
            break
        sentinels = (*_special_end(backend, before, tokens), *_SENTINELS)
        new = _continuation(backend, text, sentinels, tokenizer.unk_token_id, most)
        tokens += new
        supervised += [learn] * len(new)
    supervised[:1] = [False] * len(supervised[:1])
    return tokens, supervised


def begin_text(tokenizer: Tokenizer) -> str:
    """Return what, written before a text, gives the tokens that the tokenizer by its own habit puts there; "" for none.

    Some tokenizers put a blank before a text, but not behind a begin token: there it is written out.
    """
    backend = _backend(tokenizer)
    habit = _begin_tokens(backend)
    begin = "".join(backend.id_to_token(token) or "" for token in habit)
    right = habit + _first_ids(backend, "a", 0)
    fitting = [begin + blank for blank in ("", " ") if begin and _ids(backend, f"{begin}{blank}a") == right]
    return fitting[0] if fitting else begin


def _is_supervised(piece: Piece) -> bool:
    return piece.supervised


def _backend(tokenizer: Tokenizer) -> Backend:
    if not tokenizer.is_fast:
        raise ModelError(
            f"tokenizer {type(tokenizer).__name__} is slow, allowed is one with a tokenizer.json: save it so."
        )
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None:
        tokenizer("", add_special_tokens=False)  # a call without options clears what an earlier call has left set
    return backend


def _ids(backend: Backend, text: str) -> list[int]:
    return backend.encode(text, add_special_tokens=False).ids


def _begin_tokens(backend: Backend) -> list[int]:
    if not backend.num_special_tokens_to_add(is_pair=False):
        return []
    bare, dressed = _ids(backend, "0"), backend.encode("0").ids
    return dressed[: next(n for n in range(len(dressed)) if dressed[n : n + len(bare)] == bare)]


def _special_end(backend: Backend, before: str, tokens: Sequence[int]) -> list[str]:
    """Return the special token with which the text before ends, if it does."""
    if not tokens:
        return []
    last = str(backend.id_to_token(tokens[-1]))
    skipped = not backend.decode(tokens[-1:], skip_special_tokens=True)
    return [last] if skipped and before.endswith(last) else []


def _first_ids(backend: Backend, text: str, most: int) -> list[int]:
    """Return the tokens of a text, of one beyond all measure more than the first `most`."""
    enough = (most + _SPARE) * _LONGEST_TOKEN
    if not most or len(text) <= enough:
        return _ids(backend, text)
    found = _ids(backend, text[:enough])
    # A word that a tokenizer does not know may be one token however long it is.
    return found if len(found) >= most + _SPARE else _ids(backend, text)


def _continuation(backend: Backend, text: str, sentinels: Sequence[str], unknown: object, most: int) -> list[int]:
    for sentinel in sentinels:
        head, whole = _ids(backend, sentinel), _first_ids(backend, sentinel + text, most)
        # Neighbouring unknown characters may become one token, so an unknown sentinel proves nothing.
        if unknown not in head and whole[: len(head)] == head:
            return whole[len(head) :]
    raise ModelError(
        f"the tokenizer joins {text[:20]!r} to every text before it, so what is learnt cannot be told from what is "
        "not: use another tokenizer or template."
    )
