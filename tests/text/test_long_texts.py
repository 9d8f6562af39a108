"""Texts without end: what is cut off is never tokenised, and what is kept is as if it had been."""

import pytest

from fedloom.contracts.language import Piece
from fedloom.text.masks import pieces_to_tokens
from support.tokenizers import KINDS, tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", ["the old baker sells red bread. ", "x", "\u5317\u4eac", "  "])
def test_of_a_text_without_end_the_first_tokens_are_those_of_the_whole(kind, unit):
    """Nothing but time tells the two apart, and here not even that."""
    made, long = tokenizer(kind), unit * (20_000 // len(unit))
    pieces = [Piece("USER: go on ASSISTANT:", supervised=False), Piece(long, supervised=True)]
    whole, marks = pieces_to_tokens(pieces, made)
    found, learnt = pieces_to_tokens(pieces, made, most=40)
    assert (found[:40], learnt[:40]) == (whole[:40], marks[:40])
    assert (len(found) > 40) == (len(whole) > 40)


def test_a_text_without_end_is_not_tokenised_whole(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "fedloom.text.masks._ids", lambda backend, text: seen.append(len(text)) or list(range(len(text)))
    )
    pieces = [Piece("a" * 10**6, supervised=False), Piece("b" * 10**6, supervised=True)]
    assert len(pieces_to_tokens(pieces, tokenizer(KINDS[0]), begin=False, most=40)[0]) > 40
    assert max(seen) < 5_000
