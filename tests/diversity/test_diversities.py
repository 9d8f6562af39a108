"""The axes of diversity against libraries, brute force and limiting cases; no model is needed."""

import json
import random
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from fedloom.base.plugin import lookup, names
from fedloom.contracts.diversity import Diversity, Instruments
from fedloom.contracts.examples import Chat, Document, Preference, Turn, chat
from fedloom.data.example_texts import instruction, response
from fedloom.diversity.axes._against_pool import counts_of, divergence_index
from fedloom.diversity.axes.categories import verb_and_noun
from fedloom.diversity.axes.numbers import by_length
from fedloom.diversity.instruments import language_of

AXES = names(Diversity)
BOUNDED = ("language", "instruction", "preference")
WIDTH = 5


def vectors(texts):
    """Points that are far from each other for texts that begin unlike, equal for texts that begin alike."""
    return np.array([np.random.Generator(np.random.PCG64(ord(text[0]))).normal(size=WIDTH) for text in texts])


TOOLS = Instruments(
    language=lambda example: example.tags.get("language", "untagged"),
    length=lambda text: len(text.split()),
    length_unit="words",
    vectors=vectors,
    bandwidth=1.0,
    ifd=lambda examples: [float(example.tags.get("ifd", "nan")) for example in examples],
)


def pair(prompt, chosen, rejected, **tags):
    return Preference((Turn("user", prompt),), chosen, rejected, tags)


def some_pairs(seed, count):
    draw = random.Random(seed)
    asked = ("write a zebra", "list big houses", "what is blue", "explain apples", "numbers please")
    return [
        pair(
            f"{draw.choice(asked)} {' '.join(['more'] * draw.randrange(40))}",
            "\n".join(["- secret answer"] * draw.randrange(1, 20)),
            " ".join(["**rejected**"] * draw.randrange(1, 20)),
            language=draw.choice("abc"),
            ifd=str(draw.uniform(0, 4)),
        )
        for _ in range(count)
    ]


CLIENTS = {f"client {number}": some_pairs(number, 3 + 7 * number) for number in range(4)}


def found(name, clients):
    axis = lookup(Diversity, name)()
    return axis.find({client: axis.aggregate(examples, TOOLS) for client, examples in clients.items()}, TOOLS)


def index(name, clients, at=0):
    return found(name, clients).indices[at]


@pytest.mark.parametrize("name", AXES)
def test_aggregates_of_clients_add_up_to_that_of_the_pool(name):
    axis = lookup(Diversity, name)()
    whole = axis.aggregate([example for examples in CLIENTS.values() for example in examples], TOOLS)
    parts = [axis.aggregate(examples, TOOLS) for examples in CLIENTS.values()]
    added = {
        table: {place: sum(part[table].get(place, 0) for part in parts) for place in bins}
        for table, bins in whole.items()
    }
    assert all(added[table] == pytest.approx(dict(bins)) for table, bins in whole.items())


@pytest.mark.parametrize("name", AXES)
def test_identical_clients_are_0_apart(name):
    same = {client: some_pairs(1, 20) for client in "abc"}
    assert all(
        value == pytest.approx(0, abs=1e-12) for one in found(name, same).indices for value in one.values.values()
    )


def disjoint(sizes):
    """Clients without a language, an instruction or a taste in common."""
    first = [pair("write zebras", "one two", "one", language="a")] * sizes[0]
    second = [pair("list houses", "one", "one two", language="b")] * sizes[1]
    return {"first": first, "second": second}


@pytest.mark.parametrize("sizes", [(5, 5), (1, 30)])
@pytest.mark.parametrize("name", BOUNDED)
def test_disjoint_clients_are_as_far_from_the_pool_as_can_be(name, sizes):
    one = index(name, disjoint(sizes))
    assert one.values == pytest.approx(one.highest)


def test_embedding_of_disjoint_clients_is_at_most_its_bound():
    far = Instruments(**{**vars(TOOLS), "bandwidth": 0.01})
    axis = lookup(Diversity, "embedding")()
    sent = {client: axis.aggregate(examples, far) for client, examples in disjoint((3, 9)).items()}
    one = axis.find(sent, far).indices[0]
    assert one.values == pytest.approx(one.highest, rel=0.15)  # the noise of 256 random features


def test_one_client_that_holds_everything_is_the_pool():
    assert all(value == 0 for name in AXES for value in index(name, {"only": some_pairs(0, 9)}).values.values())


@pytest.mark.parametrize("name", AXES)
def test_order_of_clients_does_not_matter(name):
    turned = dict(reversed(CLIENTS.items()))
    one, other = found(name, CLIENTS), found(name, turned)
    assert [i.values for i in one.indices] == [pytest.approx(i.values) for i in other.indices]


@pytest.mark.parametrize("name", AXES)
def test_order_of_records_does_not_matter(name):
    turned = {client: list(reversed(examples)) for client, examples in CLIENTS.items()}
    assert [i.values for i in found(name, CLIENTS).indices] == [
        pytest.approx(i.values) for i in found(name, turned).indices
    ]


@pytest.mark.parametrize("name", AXES)
def test_no_text_of_a_record_leaves_its_client(name):
    words = [f"privateword{number}" for number in range(50)]
    examples = [pair(f"write a {w}", f"- {w} chosen", f"{w} rejected", language="en") for w in words]
    sent = json.dumps(lookup(Diversity, name)().aggregate(examples, TOOLS))
    assert not [text for text in ("privateword", "chosen", "rejected", "write a") if text in sent]


@pytest.mark.parametrize("name", ["language", "quality", "instruction", "length", "embedding"])
def test_random_parts_of_one_pool_are_as_far_from_it_as_chance_says(name):
    examples = some_pairs(5, 600)
    parts = {str(number): examples[10 * number : 10 * number + 10] for number in range(60)}
    one = index(name, parts)
    assert np.mean(list(one.values.values())) == pytest.approx(np.mean(list(one.chance.values())), rel=0.25)


# ------------------------------------------------------------------------------------------------------------- oracles


def test_divergence_is_that_of_scipy():
    values = index("language", CLIENTS).values
    counts = {c: [sum(e.tags["language"] == x for e in examples) for x in "abc"] for c, examples in CLIENTS.items()}
    pool = np.sum(list(counts.values()), axis=0)
    assert values == pytest.approx({c: jensenshannon(own, pool, base=2) ** 2 for c, own in counts.items()})


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_largest_divergence_is_that_of_a_client_whose_bins_nobody_shares(share):
    one = divergence_index(counts_of({"a": {"t": {"x": 100 * share}}, "b": {"t": {"y": 100 * (1 - share)}}}, "t"), "")
    assert one.highest["a"] == pytest.approx(jensenshannon([1, 0], [share, 1 - share], base=2) ** 2)


def test_distance_of_lengths_is_that_of_scipy_up_to_the_width_of_bins():
    lengths = {c: [len(e.prompt[0].text.split()) for e in examples] for c, examples in CLIENTS.items()}
    pool = [length for own in lengths.values() for length in own]
    exact = {client: wasserstein_distance(own, pool) for client, own in lengths.items()}
    assert index("length", CLIENTS).values == pytest.approx(exact, abs=0.045 * max(pool))


def test_distance_of_difficulties_is_that_of_scipy_up_to_the_width_of_bins():
    ratios = {c: [min(float(e.tags["ifd"]), 3) for e in examples] for c, examples in CLIENTS.items()}
    pool = [ratio for own in ratios.values() for ratio in own]
    exact = {client: wasserstein_distance(own, pool) for client, own in ratios.items()}
    assert index("quality", CLIENTS).values == pytest.approx(exact, abs=0.02)


def test_gini_is_the_mean_difference_over_twice_the_mean():
    sizes = [len(examples) for examples in CLIENTS.values()]
    differences = sum(abs(a - b) for a in sizes for b in sizes)
    assert found("quantity", CLIENTS).figures["gini"] == pytest.approx(differences / (2 * len(sizes) * sum(sizes)))


def test_effective_number_is_the_inverse_of_the_sum_of_squared_shares():
    sizes = np.array([len(examples) for examples in CLIENTS.values()])
    expected = 1 / ((sizes / sizes.sum()) ** 2).sum()
    assert found("quantity", CLIENTS).figures["effective_clients"] == pytest.approx(expected)


def test_discrepancy_is_that_of_the_gaussian_kernel_up_to_its_random_features():
    points = {client: vectors([instruction(example) for example in examples]) for client, examples in CLIENTS.items()}
    pool = np.concatenate(list(points.values()))

    def kernel(x, y):
        return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / 2).mean()

    exact = {c: kernel(own, own) - 2 * kernel(own, pool) + kernel(pool, pool) for c, own in points.items()}
    assert index("embedding", CLIENTS).values == pytest.approx(exact, rel=0.2)


def test_chance_of_the_discrepancy_is_its_mean_over_all_draws():
    axis = lookup(Diversity, "embedding")()
    examples = [chat(text, "x") for text in "abcdef"]
    halves = [
        index("embedding", {"drawn": drawn, "rest": [e for e in examples if e not in drawn]})
        for drawn in map(list, combinations(examples, 2))
    ]
    assert axis.kind == "features" and np.mean([one.values["drawn"] for one in halves]) == pytest.approx(
        halves[0].chance["drawn"]
    )


def test_agreement_is_the_mean_over_pairs_of_clients():
    rates = []
    for examples in CLIENTS.values():
        signs = [len(e.chosen.split()) - len(e.rejected.split()) for e in examples]
        rates.append(sum(s > 0 for s in signs) / sum(s != 0 for s in signs))
    expected = np.mean([p * q + (1 - p) * (1 - q) for p, q in combinations(rates, 2)])
    assert found("preference", CLIENTS).figures["agreement_longer"] == pytest.approx(expected)


# --------------------------------------------------------------------------------------------------------- definitions


@pytest.mark.parametrize("length", [0, 1, 7, 12, 13, 100, 5000, 2**19])
def test_a_length_lies_within_5_percent_of_the_middle_of_its_bin(length):
    ((middle, _),) = by_length([length]).items()
    assert float(middle) == pytest.approx(length, rel=0.05)


def test_lengths_beyond_all_bins_count_in_the_last_one():
    assert by_length([2**20, 2**30]).total() == 2 and len(by_length([2**20, 2**30])) == 1


@pytest.mark.parametrize(
    ("text", "verb", "noun"),
    [
        ("Give three tips for staying healthy.", "give", "tip"),
        ("What is the capital of France?", "what", "capital"),
        ("Hello. Write a poem", "other", "hello"),
        ("could you please SUMMARIZE this long article, in two lines", "summarize", "article"),
        ("", "other", ""),
        ("?!", "other", ""),
        ("Explain", "explain", ""),
        ("\u5199\u4e00\u9996\u8bd7", "other", "\u9996\u8bd7"),
        ("Solve the glass", "solve", "glass"),
    ],
)
def test_verb_and_noun_follow_the_rule(text, verb, noun):
    assert verb_and_noun(text) == (verb, noun)


def test_half_a_surrogate_pair_has_a_pair():
    assert found("instruction", {"a": [chat("write \ud800", "x")]}).figures["pairs"] == 1


def test_frame_of_alpaca_is_no_part_of_an_instruction():
    framed = pair("Below is a task.\n\n### Instruction:\nName a fish.\n\n### Response:", "cod", "cow")
    assert instruction(framed) == "Name a fish."


def test_language_of_a_framed_prompt_is_that_of_the_question():
    question, answer = (
        "¿Cuál es el río más largo de España y dónde nace?",
        "El río más largo es el Tajo, y nace en Teruel.",
    )
    frame = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{question} \n\n### Response:"
    )
    identify = language_of()
    assert identify(pair(question, answer, "no")) == identify(pair(frame, answer, "no")) == "es"


def test_all_turns_of_a_dialogue_count():
    talk = Chat(
        (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    )
    assert (instruction(talk), response(talk)) == ("a\nc", "b\nd")


@pytest.mark.parametrize(("chosen", "rejected", "rate"), [("- a\n- b", "a b c", 1.0), ("a", "1. a", 0.0)])
def test_list_lines_are_told_from_prose(chosen, rejected, rate):
    assert found("preference", {"a": [pair("q", chosen, rejected)]}).figures["rate_list-like"] == rate


def test_pairs_that_do_not_differ_say_nothing():
    same, longer = pair("q", "a", "b"), pair("q", "a b", "a")
    assert found("preference", {"a": [same] * 9 + [longer]}).figures["rate_longer"] == 1


def test_clients_without_anything_to_measure_have_no_value():
    clients = {"pairs": some_pairs(0, 3), "chats": [chat("write this", "x y")]}
    assert set(index("preference", clients).values) == {"pairs"}


def test_documents_have_a_response_alone():
    assert [one.label for one in found("length", {"a": [Document("a b")]}).indices] == ["Wasserstein-1, response"]


def test_an_empty_answer_has_length_0():
    assert found("length", {"a": [chat("a", "")]}).figures["mean_response"] == 0


def test_records_without_difficulty_are_not_counted():
    clients = {"a": [chat("q", "a", ifd="0.5"), chat("q", "")]}
    assert found("quality", clients).figures["records"] == 1
