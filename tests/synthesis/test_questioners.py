"""How models are brought to ask: what is shown, what is read out of a completion."""

import pytest

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup, names
from fedloom.contracts.synthesis import PoolRow, Questioner
from fedloom.synthesis.questioning import questioning, teaching

SEEDS = [
    PoolRow(id=str(at), document="", instruction=f"What is sold in {town}?", response=goods)
    for at, (town, goods) in enumerate((("Tavik", "plums"), ("Lodz", "figs"), ("Orsk", "salt"), ("Bree", "wool")))
]


def asker(name, **settings):
    return lookup(Questioner, name)(**settings)


@pytest.mark.parametrize("name", names(Questioner))
def test_what_is_asked_depends_on_the_seed_alone(name):
    questioner = asker(name)
    assert questioner.asks(SEEDS, 3, 5) == questioner.asks(SEEDS, 3, 5)
    assert len(questioner.asks(SEEDS, 4, 5)) == 4
    if questioner.shows and name != "seeds":
        assert questioner.asks(SEEDS, 3, 5) != questioner.asks(SEEDS, 3, 6)


@pytest.mark.parametrize("name", ["icl", "self_instruct"])
def test_each_request_shows_seeds_of_its_own_and_nothing_else(name):
    for ask in asker(name, examples=2).asks(SEEDS, 8, 0):
        (turn,) = ask.prompt
        shown = [row for row in SEEDS if row.instruction in turn.text]
        assert len(ask.examples) == 2 == len(shown) and set(shown) == set(ask.examples)
        assert turn.role == "user"


ICL = {
    "Where is Elst?\n##output\nBy the river.": ("Where is Elst?", "By the river."),
    "###example\n##instruction\nWhere is Elst?\n##output\nBy it.": ("Where is Elst?", "By it."),
    "Where is Elst?": ("", ""),
    "##output\nBy the river.": ("", ""),
    "Where is Elst?\n##output\n": ("", ""),
    "Where?\n##output\nHere.\n###example\n##instruction\nWho?": ("", ""),
    "Where?\n##output\nHere.\n##output\nThere.": ("", ""),
    "": ("", ""),
}


@pytest.mark.parametrize("text", ICL)
def test_an_example_needs_both_fields_and_no_header_in_them(text):
    assert asker("icl").read(text) == ICL[text]


@pytest.mark.parametrize(
    "text", ["Where is Elst?", " 4. Where is Elst?", "\n- Where is Elst?\nWho lives there?", "12) Where is Elst?  \n"]
)
def test_an_instruction_is_a_line_without_its_number(text):
    assert asker("self_instruct").read(text) == ("Where is Elst?", "")


def test_an_empty_completion_is_no_question():
    assert [asker(name).read("  \n") for name in ("free", "self_instruct")] == [("", "")] * 2


def test_seeds_are_taken_once_each():
    taken = [ask.text for ask in asker("seeds").asks(SEEDS, 4, 0)]
    assert sorted(taken) == sorted(row.instruction for row in SEEDS)
    with pytest.raises(ConfigError, match="found 5, the seeds have 4"):
        asker("seeds").asks(SEEDS, 5, 0)


def test_prompts_that_ship_are_versioned_and_whole():
    assert questioning().version == 1 and "{examples}" in questioning().icl.ask
    prompt = teaching("plain").prompt("How much?", SEEDS[:1])
    assert [(turn.role, turn.text) for turn in prompt] == [
        ("user", SEEDS[0].instruction),
        ("assistant", SEEDS[0].response),
        ("user", "How much?"),
    ]


def test_a_file_of_prompts_without_a_place_for_the_question_is_refused(tmp_path):
    (tmp_path / "own.toml").write_text('question = "Answer."\n')
    with pytest.raises(ConfigError, match=r"allowed is a text with \{question\}"):
        teaching(str(tmp_path / "own.toml"))
