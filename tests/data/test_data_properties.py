"""Properties of everything that divides examples, over random sizes, for all plug-ins of the folder."""

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base.plugin import lookup, names
from fedloom.contracts.examples import Document, Preference, Turn
from fedloom.contracts.federated import Partition
from fedloom.data.card import partition_card
from fedloom.data.holdout import hold_out, normalised

NAMES = sorted(set(names(Partition)) - {"label_skew"})  # of which a draw may not do: test_partitions
NATURAL = {"by_key", "by_file"}  # their number of clients is in the data
quick = settings(max_examples=25, deadline=None)


@st.composite
def example_lists(draw):
    """Examples with the tags that the shipped partitions read by default, and a number of clients they can serve."""
    few = st.integers(0, 3)
    rows = draw(st.lists(st.tuples(few, few, few, st.integers(0, 40)), min_size=1, max_size=60))
    examples = [
        Document("x" * size, {"client": f"c{a}", "file": f"f{b}", "topic": f"t{c}", "label": f"l{a}", "quality": "0.5"})
        for a, b, c, size in rows
    ]
    return examples, draw(st.integers(1, len(examples)))


def divide(name, examples, n_clients, seed):
    return lookup(Partition, name)()(examples, 0 if name in NATURAL else n_clients, Random(seed))


@pytest.mark.parametrize("name", NAMES)
@quick
@given(case=example_lists(), seed=st.integers(0, 2**32))
def test_partition_covers_every_index_exactly_once(name, case, seed):
    parts = divide(name, *case, seed)
    assert sorted(index for part in parts.values() for index in part) == list(range(len(case[0])))


@pytest.mark.parametrize("name", NAMES)
@quick
@given(case=example_lists(), seed=st.integers(0, 2**32))
def test_partition_leaves_no_client_empty(name, case, seed):
    assert all(divide(name, *case, seed).values())


@pytest.mark.parametrize("name", sorted(set(NAMES) - NATURAL))
@quick
@given(case=example_lists(), seed=st.integers(0, 2**32))
def test_partition_names_the_clients_in_order(name, case, seed):
    assert list(divide(name, *case, seed)) == [f"client_{number:03d}" for number in range(case[1])]


@pytest.mark.parametrize("name", NAMES)
@quick
@given(case=example_lists(), seed=st.integers(0, 2**32))
def test_partition_is_a_function_of_its_generator(name, case, seed):
    first, second = (divide(name, *case, seed) for _ in range(2))
    assert list(first.items()) == list(second.items())


@st.composite
def owned_texts(draw):
    """Texts of few kinds, so that many repeat within and across clients, dealt to clients."""
    owners = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=60))
    indices: dict[str, list[int]] = {}
    for index, (owner, _) in enumerate(owners):
        indices.setdefault(f"c{owner}", []).append(index)
    return indices, [
        Document(f"Text  {kind}" if index % 2 else f"text {kind}") for index, (_, kind) in enumerate(owners)
    ]


settings_of_hold_out = {"fraction": st.floats(0, 0.9), "minimum": st.integers(1, 3), "seed": st.integers(0, 99)}


@quick
@given(case=owned_texts(), **settings_of_hold_out)
def test_hold_out_covers_each_client_exactly_once(case, fraction, minimum, seed):
    split = hold_out(*case, fraction=fraction, minimum=minimum, seed=seed)
    assert {client: sorted(split.train[client] + split.held[client]) for client in case[0]} == case[0]


@quick
@given(case=owned_texts(), **settings_of_hold_out)
def test_no_held_text_is_trained_on_anywhere(case, fraction, minimum, seed):
    indices, examples = case
    split = hold_out(indices, examples, fraction=fraction, minimum=minimum, seed=seed)
    trained = {normalised(examples[index]) for part in split.train.values() for index in part}
    assert trained.isdisjoint(normalised(examples[index]) for part in split.held.values() for index in part)


@quick
@given(case=owned_texts(), **settings_of_hold_out)
def test_hold_out_leaves_every_client_something_to_train_on(case, fraction, minimum, seed):
    assert all(hold_out(*case, fraction=fraction, minimum=minimum, seed=seed).train.values())


@quick
@given(case=owned_texts(), **settings_of_hold_out)
def test_a_client_holds_out_the_minimum_or_is_listed(case, fraction, minimum, seed):
    split = hold_out(*case, fraction=fraction, minimum=minimum, seed=seed)
    assert all(len(held) >= minimum or (not held and name in split.too_small) for name, held in split.held.items())


@quick
@given(case=example_lists())
def test_card_histograms_add_up_to_the_assigned_examples(case):
    examples, n_clients = case
    card = partition_card(examples, divide("iid", examples, n_clients, 0), 0)
    per_client = card["length_characters"]["by_client"]
    assert {client: sum(histogram) for client, histogram in per_client.items()} == card["counts"]


@quick
@given(case=example_lists())
def test_card_survives_json(case):
    card = partition_card(case[0], divide("iid", *case, 0), 0)
    assert json.loads(json.dumps(card)) == card


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_a_prompt_stay_on_one_side(seed):
    examples = [Preference((Turn("user", f"question {at % 10}"),), f"a{at}", f"b{at}") for at in range(40)]
    split = hold_out({"a": range(40)}, examples, fraction=0.2, minimum=1, seed=seed)
    assert split.held["a"]
    assert not {at % 10 for at in split.held["a"]} & {at % 10 for at in split.train["a"]}
