"""The data of the world is well-formed: every choice, value and name in it is one that the code knows."""

import re
from collections import defaultdict
from importlib.resources import files
from random import Random
from string import Formatter
from typing import get_args

import pytest

from fedloom.world.crowds import CROWDS, CrowdName
from fedloom.world.domains import COMPLIANCE, DOMAINS, EVENTS, FINISHING_WEIGHTS, TASKS, WEIGHTS
from fedloom.world.facts import RELATIONS
from fedloom.world.families import FAMILIES
from fedloom.world.names import ENDINGS
from fedloom.world.wording import WORDINGS, unfold
from fedloom.world.words import PHRASES, WORDS, table

FILES = [path.name.removesuffix(".toml") for path in (files("fedloom.world") / "data").iterdir()]
HEADLINE = table("tasks")["headline"]


def leaves(value):
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, tuple) else [value]


def cores(wordings):
    return wordings.train + wordings.valid + wordings.test


def values(template):
    return {field for _, field, _, _ in Formatter().parse(template) if field is not None}


@pytest.fixture(scope="module")
def asked():
    """The values that questions give to the cores of each entry, from draws of every task."""
    names = {wordings: name for name, wordings in WORDINGS.items()}
    found = defaultdict(set)
    for task in TASKS.values():
        random = Random(0)
        for question in (task(random, "fresh") for _ in range(60)):
            found[names[question.wordings]].add(frozenset(question.values))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_text_is_in_lower_case(name):
    assert not [leaf for leaf in leaves(table(name)) if isinstance(leaf, str) and leaf != leaf.lower()]


@pytest.mark.parametrize("name", FILES)
def test_every_choice_is_closed_and_has_alternatives(name):
    texts = [leaf for leaf in leaves(table(name)) if isinstance(leaf, str)]
    inside = [choice for text in texts for choice in re.findall(r"\(([^()]*)\)", text)]
    assert not [text for text in texts if set("()|") & set(re.sub(r"\([^()]*\)", "", text))]
    assert not [choice for choice in inside if "" in choice.split("|") or "|" not in choice]


def test_every_wording_is_asked_and_has_the_values_of_its_questions(asked):
    assert asked.keys() == WORDINGS.keys()
    pairs = [(core, known) for name in asked for known in asked[name] for core in cores(WORDINGS[name])]
    assert not [core for core, known in pairs if not values(core) <= known]


def test_every_wording_has_cores_of_every_split_and_repeats_none():
    for wordings in WORDINGS.values():
        assert wordings.train and wordings.valid and wordings.test
        assert len(set(cores(wordings))) == len(cores(wordings))


def test_no_held_out_wording_of_any_task_is_a_training_wording_of_another():
    train = {surface for w in WORDINGS.values() for core in w.train for surface in unfold(core)}
    held = {surface for w in WORDINGS.values() for core in w.valid + w.test for surface in unfold(core)}
    assert not train & held


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_relations_tell_name_and_answer_and_lean_on_neither(relation):
    assert relation.kind in ENDINGS
    assert relation.domain in DOMAINS
    assert all(values(statement) == {"x", "y"} for statement in relation.statements)
    assert not any(values(follow_up) for follow_up in relation.follow_ups)


def test_notes_and_titles_have_their_values():
    assert all(values(note) == {"person", "record", "date", "facts"} for note in leaves(PHRASES["notes"]))
    assert all(values(title) == {"x"} for title in leaves(PHRASES["titles"]))
    assert {relation.kind for relation in RELATIONS} == PHRASES["notes"].keys() == PHRASES["titles"].keys()


def test_headlines_have_their_values():
    assert all(values(verb) <= {"base", "told"} for verb in HEADLINE["affirmed"] + HEADLINE["negated"])
    assert not any("told" in values(verb) for verb in HEADLINE["negated"])
    assert all(values(ending) <= {"town"} for ending in HEADLINE["endings"])
    assert set(EVENTS) == set(WORDS["moods"])
    assert all(len(forms) == 2 for events in EVENTS.values() for forms in events)


def test_tasks_named_in_the_data_exist():
    named = {task for tasks in DOMAINS.values() for task in tasks} | WEIGHTS.keys() | FINISHING_WEIGHTS.keys()
    assert named <= TASKS.keys()
    assert COMPLIANCE.keys() <= WORDINGS.keys()


def test_crowds_are_those_of_the_code_and_speak_known_languages():
    assert set(CROWDS) == set(get_args(CrowdName))
    known = {language for members in FAMILIES.values() for language in members}
    assert all(crowd.languages.keys() <= known for crowd in CROWDS.values())


def test_data_cannot_be_changed_by_a_reader():
    assert not [leaf for name in FILES for leaf in leaves(table(name)) if isinstance(leaf, list)]
