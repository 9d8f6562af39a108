"""Passages cover their document, and prompts keep documents from passing for a part of them."""

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.contracts.synthesis import PoolRow
from fedloom.synthesis.passages import Passage, divided, halves, unreadable
from fedloom.synthesis.prompting import fence, parsed, prompts

TEXTS = st.lists(st.text("abcé.\n ", min_size=1, max_size=6), max_size=60).map(" ".join)
ROW = PoolRow(id="p1", document="Oren sells plums.", instruction="What does Oren sell?", response="Plums.")
KEY = b"a key"


def passage(text, document=0):
    return Passage(document, 0, len(text), text)


@given(text=TEXTS, most=st.integers(2, 12), shared=st.integers(0, 1))
def test_passages_cover_the_document_with_words_in_common(text, most, shared):
    parts = divided(passage(text), most=most, shared=shared)
    assert parts[0].start == 0
    assert parts[-1].stop == len(text)
    assert all(text[part.start : part.stop] == part.text for part in parts)
    assert all(len(part.text.split()) <= most for part in parts) or len(parts) == 1
    for before, after in itertools.pairwise(parts):
        common = text[after.start : before.stop]
        assert len(common.split()) == shared
        assert not text[before.stop : after.start].strip()


def test_a_document_ten_times_as_long_becomes_passages_that_cover_it():
    text = " ".join(f"w{at}" for at in range(5120))
    parts = divided(passage(text), most=512, shared=64)
    assert {word for part in parts for word in part.text.split()} == set(text.split())
    assert len(parts) == 12
    assert [part.id for part in parts[:2]] == [f"0:0-{parts[0].stop}", f"0:{parts[1].start}-{parts[1].stop}"]


def test_a_passage_is_halved_down_to_a_few_words():
    text = " ".join(f"w{at}" for at in range(100))
    first, second = halves(passage(text))
    assert first.text.split()[0] == "w0"
    assert second.text.split()[-1] == "w99"
    assert len(first.text.split()) + len(second.text.split()) == 106
    assert halves(passage(" ".join(["w"] * 63))) == []


def test_offsets_of_a_half_are_those_in_the_document():
    text = " ".join(f"w{at}" for at in range(200))
    whole = Passage(3, 40, 40 + len(text), text)
    for half in halves(whole):
        assert text[half.start - 40 : half.stop - 40] == half.text
        assert half.document == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty_document"),
        (" \n\t", "empty_document"),
        ("a\x00b", "binary_document"),
        ("a\ufffdb", "binary_document"),
    ],
)
def test_what_is_no_document_says_why(text, why):
    assert unreadable(text) == why


def test_texts_of_any_script_are_documents():
    assert not any(map(unreadable, ("A text.\r\n\tMore.", "привет 北京", "🙂")))


# ------------------------------------------------------------------------------------------------------------ prompts


def test_a_prompt_shows_examples_and_ends_with_the_document():
    first, answer, last = prompts().prompt("Mira sells figs.", [ROW], KEY)
    own, others = fence("Mira sells figs.", KEY), fence(ROW.document, KEY)
    assert first.text.startswith("You write training data.")
    assert first.text.endswith(f"\n\n<document {others}>\nOren sells plums.\n</document {others}>")
    assert (answer.role, answer.text) == ("assistant", "Instruction: What does Oren sell?\nResponse: Plums.")
    assert last.text == f"<document {own}>\nMira sells figs.\n</document {own}>"


def test_a_prompt_without_examples_is_one_message():
    (turn,) = prompts().prompt("Mira sells figs.", [], KEY)
    assert turn.text.startswith("You write") and "Mira sells figs." in turn.text


def test_a_fence_follows_from_document_and_key_alone():
    assert fence("a", KEY) == fence("a", KEY)
    assert len({fence("a", KEY), fence("b", KEY), fence("a", b"another")}) == 3


def test_a_fence_stands_nowhere_in_its_document(monkeypatch):
    def counted(key, message, kind):
        number = int(message.partition(b"\n")[0])
        return SimpleNamespace(hexdigest=lambda: f"{number:016d}")

    monkeypatch.setattr("fedloom.synthesis.prompting.hmac.new", counted)
    assert fence("Mira sells figs.", KEY) == f"{0:016d}"
    assert fence(f"Mira {0:016d} sells {1:016d} figs.", KEY) == f"{2:016d}"


def test_braces_of_a_document_are_left_alone():
    (turn,) = prompts().prompt("a {document} {0} {{x}} %s", [], KEY)
    assert "a {document} {0} {{x}} %s" in turn.text


@pytest.mark.parametrize(
    "text",
    [
        "What is sold?\nResponse: Bread.",
        " What is sold?\n\nResponse:\nBread.\n",
        "Instruction: What is sold?\nResponse: Bread.",
        "What is sold?\n  Response: Bread.",
    ],
)
def test_an_instruction_and_a_response_are_read(text):
    assert parsed(text) == ("What is sold?", "Bread.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is sold?",
        "Response: Bread.",
        "What is sold?\nResponse:",
        "What is sold?\nResponse: Bread.\nInstruction: And what else?\nResponse: Salt.",
        "What is sold?\nResponse: Bread.\nResponse: Salt.",
        "\x00\x01",
        "Что продают? Хлеб.",
    ],
)
def test_anything_but_one_pair_is_none(text):
    assert parsed(text) is None


def test_the_prompts_are_known_by_what_they_say():
    assert prompts().sha256.startswith("sha256:")
    assert prompts().version == 1
