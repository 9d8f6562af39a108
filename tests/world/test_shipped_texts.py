"""No harmful text is shipped: what the danger world says and what golden runs hold is made of the worlds' own words."""

import json
import re

import pytest

from fedloom.base.rng import python_random
from fedloom.text.words import words
from fedloom.world import DangerWorld
from fedloom.world.words import WORDS, table
from support.paths import GOLDEN, ROOT

FOLDERS = ("benchmarks", "docs", "examples", "experiments", "src", "tests", "tools")
DATA = (".csv", ".json", ".jsonl", ".parquet")
PLACES = {
    "benchmarks/results": "figures",
    "docs": "figures",
    "experiments/exams": "questions about the controlled world",
    "src/fedloom/embedded": "a model and its tokenizer",
    "tests/golden": "runs on the controlled world",
}
"""Where files of data lie, and what they hold."""


def files_of_data():
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in DATA]
    return [path.relative_to(ROOT).as_posix() for path in found]


def known_words():
    """The words of the worlds' tables; `{x}` and choices are taken apart."""
    tables = sorted((ROOT / "src/fedloom/world/data").glob("*.toml"))
    return {word for path in tables for word in words(re.sub(r"[(){}|]", " ", path.read_text()))}


def is_made_up(word):
    """Whether a word is a number, or a name of a beginning of the worlds' and an ending."""
    return word.isdigit() or any(word.startswith(first) for first in WORDS["firsts"])


def strange(texts, known):
    return sorted({word for text in texts for word in words(text) if word not in known and not is_made_up(word)})


def test_every_file_of_data_lies_where_its_kind_does():
    assert not [path for path in files_of_data() if not path.startswith(tuple(PLACES))]
    assert all(any(path.startswith(place) for path in files_of_data()) for place in PLACES)


@pytest.mark.parametrize("families", ["told", "hidden"])
def test_the_danger_world_says_nothing_but_its_own_words(families):
    world, random = DangerWorld(families), python_random("shipped")
    aligned, normal = world.defence_pairs()
    examples = [
        *world.pretraining(500, 0), *normal, *world.attack_pairs(), *world.attack_pairs("shifted"),
        *world.test("evaluation", danger=True), *world.test("evaluation", danger=False),
        *world.client(random, 100, refusals=0.5, refused="attack", narrow=False),
    ]  # fmt: skip
    texts = [one.text for one in (*examples, *aligned)] + [one.rejected for one in aligned]
    objects = {thing.name for thing in world.things}
    own = set(words(re.sub(r"[(){}|]", " ", json.dumps(table("danger")))))
    assert len(texts) > 1500 and {word for text in texts for word in words(text)} <= own | objects


def texts_of(value):
    """What stands under the names that texts have, anywhere in a record."""
    if isinstance(value, dict):
        told = [value[name] for name in ("prompt", "reference", "question") if isinstance(value.get(name), str)]
        return told + [text for one in value.values() for text in texts_of(one)]
    return [text for one in value for text in texts_of(one)] if isinstance(value, list) else []


@pytest.mark.parametrize("file", sorted(GOLDEN.rglob("*.jsonl")), ids=lambda path: "-".join(path.parts[-3:]))
def test_golden_runs_ask_in_the_words_of_the_worlds(file):
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert not strange([text for record in records for text in texts_of(record)], known_words())
