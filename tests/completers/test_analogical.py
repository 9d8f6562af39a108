"""Pairs by analogy: what an example is worth, and nothing else."""

import pytest

from fedloom.completers.analogical import Analogical, analogous, mapping
from fedloom.contracts.evaluation import Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.synthesis import PoolRow
from fedloom.synthesis.prompting import parsed, prompts

EXAMPLE = "The baker Oren sells plums in Tavik for 12 coins."
DOCUMENT = "The baker Mira sells figs in Lodz for 7 coins."


def test_words_are_mapped_by_their_neighbours():
    assert mapping(EXAMPLE.split(), DOCUMENT.split()) == {"Oren": "Mira", "plums": "figs", "Tavik": "Lodz", "12": "7"}


def test_a_pair_of_another_document_has_its_words():
    assert analogous(EXAMPLE, "What does Oren sell?", "plums", DOCUMENT) == ("What does Mira sell?", "figs")


def test_a_sum_becomes_the_sum_of_the_mapped_numbers():
    example, document = "Oren has 3 plums and buys 4 plums more.", "Mira has 5 figs and buys 9 figs more."
    assert analogous(example, "How many plums has Oren?", "7", document) == ("How many figs has Mira?", "14")


def test_a_word_without_a_counterpart_gives_no_pair():
    assert analogous(EXAMPLE, "What does Oren sell?", "plums", "A ship sails at dawn") is None


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_prompts_are_answered_by_their_last_example(shown):
    rows = [
        PoolRow(id="x", document="A ship sails at dawn.", instruction="When does it sail?", response="At dawn."),
        PoolRow(id="y", document=EXAMPLE, instruction="What does Oren sell?", response="plums"),
    ]
    prompt = prompts().prompt(DOCUMENT, rows[2 - shown :], b"key")
    with Analogical().opened() as answer:
        ((_, found),) = answer([prompt], Sampling())
    assert parsed(found.text) == (("What does Mira sell?", "figs") if shown else None)


def test_a_prompt_of_another_kind_has_an_empty_answer():
    with Analogical().opened() as answer:
        ((_, found),) = answer([(Turn("user", "Hello?"),)], Sampling())
    assert found.text == ""
