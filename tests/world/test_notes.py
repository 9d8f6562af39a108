"""Documents of made-up names: their true pairs, and what examples are worth for finding them."""

import pytest

from fedloom.world.notes import notes
from support.tools import tool


def test_a_world_is_a_function_of_its_seed():
    assert notes(3, documents=5) == notes(3, documents=5)
    assert notes(3, documents=5) != notes(4, documents=5)


def test_a_client_is_the_same_whoever_else_there_is():
    assert notes(0, clients=2, documents=7).clients["c1"] == notes(0, clients=5, documents=7).clients["c1"]


def test_the_pool_has_every_template_and_clients_write_mostly_about_their_own_domain():
    world = notes(0)
    assert len(world.pool) == 24
    assert {one.domain for one in world.pool} == {"medicine", "knowledge", "mathematics"}
    owned = world.clients["c0"]
    assert 0.8 < sum(one.domain == "medicine" for one in owned) / len(owned) < 1


def test_every_pair_is_told_by_its_document():
    for one in notes(1, documents=40).clients["c2"]:
        words = set(one.document.replace(".", "").replace(",", "").replace(";", "").split())
        numbers = [int(word) for word in words if word.isdecimal()]
        if one.domain == "mathematics":
            assert sum(numbers) == int(one.response)
        else:
            assert one.response in words
        assert "{" not in one.document + one.instruction + one.response


def test_noise_changes_words_and_keeps_names_and_numbers():
    plain, noisy = (notes(2, documents=30, noise=noise).clients["c1"] for noise in (0.0, 0.3))
    assert [one.document for one in plain] != [one.document for one in noisy]
    assert all(one.response in one.document for one in noisy if one.domain != "mathematics")


@pytest.fixture(scope="module")
def results():
    return [tool("u2s").measured(seed, noise=0.0, documents=12) for seed in range(2)]


def test_retrieved_examples_make_right_pairs_and_others_do_not(results):
    for one in results:
        assert min(one["per_datum"].share, one["per_datum"].precision) >= 0.9
        assert one["per_datum"].precision - one["client_shortlist"].precision > 0.1
        assert one["per_datum"].share - one["client_shortlist"].share > 0.3
        assert one["client_shortlist"].precision > one["random"].precision
        assert one["worst"].precision <= 0.05
        assert one["shuffled"].precision < one["per_datum"].precision - 0.4
