"""Facts of each partition, of the hold-out and of the partition card."""

import json
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import lookup, names
from fedloom.base.shares import by_largest_remainder
from fedloom.contracts.examples import Chat, Document, Preference, Turn, chat
from fedloom.contracts.federated import Partition, Source
from fedloom.data.card import effective_number, gini, partition_card
from fedloom.data.clients import divide
from fedloom.data.holdout import SetAside, hold_out, hold_out_by_text
from fedloom.data.partitions._deal import dirichlet
from fedloom.data.partitions.cut import ByLength, Iid, QuantitySkew
from fedloom.data.partitions.dirichlet import Dirichlet
from fedloom.data.partitions.natural import ByFile, ByKey
from fedloom.data.sources.file import File
from support.plugins import shipped

TOPICS = [
    Document("x" * (k % 97), {"topic": f"t{k % 4}", "label": f"l{k % 3}", "quality": str(k)}) for k in range(2000)
]


def documents(**counts):
    return [Document(f"{key} {k}", {"client": key, "file": key}) for key, n in counts.items() for k in range(n)]


def distance(part, examples, tag="topic"):
    """Total variation between a client's mixture of a tag and that of the whole."""
    here, whole = (Counter(examples[i].tags[tag] for i in indices) for indices in (part, range(len(examples))))
    return sum(abs(here[v] / len(part) - whole[v] / len(examples)) for v in whole) / 2


def mean_distance(partition, tag="topic", n_clients=10):
    parts = partition(TOPICS, n_clients, Random(0))
    return sum(distance(part, TOPICS, tag) for part in parts.values()) / n_clients


# ----------------------------------------------------------------------------------------------------------- all, iid


@pytest.mark.parametrize("name", sorted(set(names(Partition)) - {"by_key", "by_file"}))
@pytest.mark.parametrize(
    ("n_clients", "told"),
    [(0, "found clients = 0, .* set clients, 1 to 3"), (4, "3 examples for 4 clients; .* 1 to 3")],
)
def test_impossible_numbers_of_clients_are_refused_with_the_counts(name, n_clients, told):
    with pytest.raises(DataError, match=f"partition '{name}': {told}"):
        lookup(Partition, name)()(TOPICS[:3], n_clients, Random(0))


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("iid", {}, "none"),
        ("by_length", {}, "length skew"),
        ("quantity_skew", {}, "quantity skew"),
        ("dirichlet", {}, "topic skew"),
        ("dirichlet", {"by": "label"}, "label skew"),
        ("dirichlet", {"by": "label", "tag": "domain"}, "domain skew"),
        ("label_skew", {}, "label skew"),
        ("by_key", {}, "natural"),
        ("by_key", {"tag": "domain"}, "domain skew"),
        ("by_file", {}, "natural"),
    ],
)
def test_the_card_says_in_what_clients_differ(name, settings, told):
    assert lookup(Partition, name)(**settings).heterogeneity() == told


@pytest.mark.parametrize("name", shipped(Partition))
def test_every_partition_says_in_what_clients_differ(name):
    assert lookup(Partition, name)().heterogeneity() not in ("", "not told")


def test_more_than_a_thousand_clients_sort_by_name():
    parts = list(Iid()(TOPICS, 1001, Random(0)))
    assert parts == sorted(parts)


def test_iid_sizes_differ_by_at_most_one():
    assert {len(part) for part in Iid()(TOPICS, 7, Random(0)).values()} == {285, 286}


def test_iid_differs_by_seed():
    assert Iid()(TOPICS, 7, Random(0)) != Iid()(TOPICS, 7, Random(1))


# ---------------------------------------------------------------------------------------------------------- dirichlet


def test_dirichlet_of_large_alpha_is_as_close_to_the_whole_as_iid():
    # 200 examples of 4 equal classes: IID sampling alone gives a mean total variation of about 0.05.
    assert mean_distance(Dirichlet(alpha=1e6)) < 0.08


def test_dirichlet_of_small_alpha_is_skewed():
    # One class of four would be 0.75 away; what is left over when classes run out takes some of it back.
    assert mean_distance(Dirichlet(alpha=0.01)) > 0.5


def test_dirichlet_skew_falls_with_alpha():
    distances = [mean_distance(Dirichlet(alpha=alpha)) for alpha in (0.05, 0.5, 5, 500)]
    assert distances == sorted(distances, reverse=True)


def test_dirichlet_of_vanishing_alpha_does_not_underflow():
    assert mean_distance(Dirichlet(alpha=1e-300)) > 0.5


def test_dirichlet_sizes_differ_by_at_most_one():
    assert {len(part) for part in Dirichlet(alpha=0.1)(TOPICS, 7, Random(0)).values()} == {285, 286}


def test_dirichlet_by_label_skews_the_named_tag():
    assert mean_distance(Dirichlet(alpha=0.01, by="label"), tag="label") > 0.4


def test_dirichlet_by_topic_leaves_an_independent_tag_alone():
    assert mean_distance(Dirichlet(alpha=0.01), tag="label") < 0.1


def spread_of_means(partition, value):
    parts = partition(TOPICS, 10, Random(0))
    means = [sum(map(value, part)) / len(part) for part in parts.values()]
    return max(means) - min(means)


def test_dirichlet_by_length_gives_clients_of_different_length():
    wide, narrow = (
        spread_of_means(Dirichlet(alpha=alpha, by="length"), lambda i: len(TOPICS[i].text)) for alpha in (0.01, 1e6)
    )
    assert wide > 3 * narrow


def test_dirichlet_by_quality_gives_clients_of_different_quality():
    wide, narrow = (spread_of_means(Dirichlet(alpha=alpha, by="quality"), lambda i: i) for alpha in (0.01, 1e6))
    assert wide > 3 * narrow


def test_dirichlet_without_its_tag_names_example_and_tags():
    with pytest.raises(DataError, match="example 0 has no tag 'topic'; present: client, file"):
        Dirichlet()(documents(a=3), 2, Random(0))


@pytest.mark.parametrize("quality", ["good", "nan", "inf"])
def test_dirichlet_by_quality_refuses_what_is_no_number(quality):
    examples = [Document("x", {"quality": quality})]
    with pytest.raises(DataError, match=f"example 0: the tag 'quality' is '{quality}', allowed is a finite number"):
        Dirichlet(by="quality")(examples, 1, Random(0))


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_dirichlet_draws_have_the_variance_of_the_distribution(alpha):
    # Var of one of K shares is (1/K)(1 - 1/K)/(K alpha + 1); 4000 draws give it within 10 % (over 3 standard errors).
    rng, count = Random(0), 4000
    shares = [dirichlet([alpha] * 3, rng)[0] for _ in range(count)]
    mean = sum(shares) / count
    variance = sum((share - mean) ** 2 for share in shares) / count
    assert variance == pytest.approx((1 / 3) * (2 / 3) / (3 * alpha + 1), rel=0.1)


# ------------------------------------------------------------------------------------------------------ quantity skew


def sizes(partition, n_clients=20, seed=0):
    return [len(part) for part in partition(TOPICS, n_clients, Random(seed)).values()]


@pytest.mark.parametrize("law", ["log_normal", "dirichlet"])
def test_quantity_skew_is_more_unequal_than_iid(law):
    assert gini(sizes(QuantitySkew(law=law))) > gini(sizes(Iid())) + 0.2


def test_log_normal_sizes_have_its_gini_index():
    # Closed form: 2 Phi(sigma / sqrt 2) - 1 = 0.5205 at sigma = 1; mean of 40 seeds of 50 clients.
    found = sum(gini(sizes(QuantitySkew(), 50, seed)) for seed in range(40)) / 40
    assert found == pytest.approx(0.5205, abs=0.05)


def test_quantity_skew_grows_with_sigma():
    indices = [gini(sizes(QuantitySkew(sigma=sigma))) for sigma in (0.1, 0.5, 1.5)]
    assert indices == sorted(indices)


def test_quantity_skew_content_is_iid():
    parts = QuantitySkew()(TOPICS, 5, Random(0))
    assert max(distance(part, TOPICS) for part in parts.values() if len(part) > 200) < 0.1


def test_shares_are_rounded_by_the_largest_remainders():
    assert by_largest_remainder(3, [1.5, 0.9, 0.6]) == [1, 1, 1]


def test_extreme_quantity_skew_leaves_one_example_each():
    assert sorted(sizes(QuantitySkew(sigma=200.0)))[:10] == [1] * 10


# ------------------------------------------------------------------------------------------------------ natural clients


def test_by_key_takes_all_keys_in_order_of_appearance():
    assert ByKey()(documents(zoe=2, adam=1), 0, Random(0)) == {"zoe": [0, 1], "adam": [2]}


def test_by_key_accepts_the_number_of_keys():
    assert list(ByKey()(documents(zoe=2, adam=1), 2, Random(0))) == ["zoe", "adam"]


def test_by_key_reads_the_tag_it_is_given():
    assert len(ByKey(tag="topic")(TOPICS, 0, Random(0))) == 4


@pytest.mark.parametrize("keep", ["all", "largest"])
def test_by_key_refuses_more_clients_than_keys(keep):
    with pytest.raises(DataError, match="the tag 'client' has 2 values, asked for 3 clients"):
        ByKey(keep=keep)(documents(zoe=2, adam=1), 3, Random(0))


def test_by_key_refuses_fewer_clients_than_keys():
    with pytest.raises(DataError, match=r"has 2 values, asked for 1 clients; .* or set keep = \"largest\""):
        ByKey()(documents(zoe=2, adam=1), 1, Random(0))


def test_by_key_keeps_the_largest_in_order_of_appearance():
    parts = ByKey(keep="largest")(documents(eve=1, adam=2, zoe=3), 2, Random(0))
    assert parts == {"adam": [1, 2], "zoe": [3, 4, 5]}


def test_by_key_keeps_the_first_of_equal_size():
    assert list(ByKey(keep="largest")(documents(zoe=1, adam=1), 1, Random(0))) == ["zoe"]


def test_by_key_without_its_tag_names_example_and_tags():
    with pytest.raises(DataError, match="example 1 has no tag 'client'; present: none"):
        ByKey()([*documents(zoe=1), Document("x")], 0, Random(0))


@pytest.mark.parametrize("partition", [ByKey(), ByFile()])
def test_natural_clients_of_no_examples_are_refused(partition):
    with pytest.raises(DataError, match=f"partition '{partition.name}': 0 examples"):
        partition([], 0, Random(0))


def test_by_file_makes_a_client_of_each_file():
    assert ByFile()(documents(north=1, south=2), 2, Random(0)) == {"north": [0], "south": [1, 2]}


def test_by_file_refuses_another_number_of_clients():
    with pytest.raises(DataError, match="found 2 files, asked for 1 clients; ask for 2, or for 0"):
        ByFile()(documents(north=1, south=2), 1, Random(0))


# ----------------------------------------------------------------------------------------------------------- by length


def test_by_length_gives_sorted_ranges_that_do_not_overlap():
    lengths = [[len(TOPICS[i].text) for i in part] for part in ByLength()(TOPICS, 9, Random(0)).values()]
    assert all(max(shorter) <= min(longer) for shorter, longer in pairwise(lengths))


def test_by_length_draws_nothing():
    rng = Random(0)
    before = rng.getstate()
    ByLength()(TOPICS, 9, rng)
    assert rng.getstate() == before


def test_by_length_counts_all_text_of_an_example():
    short = Chat((Turn("user", "a"), Turn("assistant", "b" * 20)))
    long = Preference((Turn("user", "a"),), "b" * 15, "c" * 15)
    assert ByLength()([long, Document("d" * 25), short], 3, Random(0)) == {
        "client_000": [2],
        "client_001": [1],
        "client_002": [0],
    }


# ------------------------------------------------------------------------------------------------------------ hold-out

FORTY = [Document(f"text {k:02d}") for k in range(40)]
CLIENTS = {"a": list(range(20)), "b": list(range(20, 40))}


def held(indices=CLIENTS, examples=FORTY, **fields):
    return hold_out(indices, examples, **({"fraction": 0.25, "minimum": 1, "seed": 0} | fields))


def test_hold_out_takes_the_fraction():
    assert {client: len(part) for client, part in held().held.items()} == {"a": 5, "b": 5}


def test_hold_out_takes_at_least_the_minimum():
    assert {len(part) for part in held(fraction=0.0, minimum=3).held.values()} == {3}


def test_hold_out_repeats_with_its_seed():
    assert held() == held()


def test_hold_out_differs_by_seed():
    assert held().held != held(seed=1).held


def test_hold_out_differs_by_client():
    first, second = held().held.values()
    assert first != [index - 20 for index in second]


def test_hold_out_of_a_client_ignores_the_others():
    assert held(indices={"a": CLIENTS["a"]}).held["a"] == held().held["a"]


def test_hold_out_does_not_depend_on_the_order_of_records():
    reversed_texts = held(indices={"a": list(range(20))}, examples=FORTY[:20][::-1]).held["a"]
    assert sorted(19 - index for index in reversed_texts) == held().held["a"]


def test_equal_texts_stay_on_one_side():
    examples = [Document(text) for text in ("One", "one ", "\uff2fne", "two")]
    split = held(indices={"a": [0, 1, 2, 3]}, examples=examples, fraction=0.5)
    assert split.held == {"a": [3]}


def test_a_text_of_two_clients_is_never_held_out():
    examples = [Document(text) for text in ("same", "mine", "same", "yours")]
    split = held(indices={"a": [0, 1], "b": [2, 3]}, examples=examples, fraction=0.5)
    assert split.held == {"a": [1], "b": [3]}


def test_a_client_too_small_is_listed_and_keeps_its_records():
    split = held(indices={"a": [0], "b": [1, 2, 3, 4]})
    assert (split.too_small, split.train["a"]) == (("a",), [0])


def of_diseases(*names):
    return [Document(f"question {at}", {"disease": name}) for at, name in enumerate(names)]


@pytest.mark.parametrize("by_text", [False, True])
def test_a_group_stays_on_one_side_and_one_of_two_clients_is_not_held_out_by_number(by_text):
    examples = of_diseases(*[f"d{at // 3}" for at in range(60)], "d0")
    indices = {"a": list(range(30)), "b": list(range(30, 61))}
    if by_text:
        split = hold_out_by_text(indices, examples, fraction=0.3, seed=0, group="disease")
    else:
        split = held(indices=indices, examples=examples, fraction=0.3, group="disease")
        assert "d0" not in {examples[at].tags["disease"] for at in split.held["a"]}
    trained, asked = (
        {examples[at].tags["disease"] for owned in part.values() for at in owned} for part in (split.train, split.held)
    )
    assert trained and asked and not trained & asked
    assert all(split.held.values())


def test_a_record_without_the_tag_of_the_group_is_refused():
    with pytest.raises(DataError, match=r"holdout_group: an example has no tag 'illness', its tags are disease; give"):
        held(indices={"a": [0, 1]}, examples=of_diseases("one", "two"), group="illness")


def test_one_text_under_two_groups_is_refused():
    examples = [Document("same", {"disease": name}) for name in ("one", "two")]
    with pytest.raises(DataError, match="one text stands under 'one' and under 'two' of the tag 'disease'"):
        held(indices={"a": [0, 1]}, examples=examples, group="disease")


# --------------------------------------------------------------------------------------------------- who takes no part


class Given(Source):
    """Splits as they are."""

    def __init__(self, splits):
        self.load = lambda: splits


def absent(*names, group="", records=None, **splits):
    made = records or [Document(f"{owner} {at}", {"client": owner}) for at in range(6) for owner in "abc"]
    aside = SetAside(0.3, group=group, absent=names)
    source = Given({"train": made, **splits})
    return divide(source, lookup(Partition, "by_key")(), n_clients=0, seed=0, aside=aside)


def test_absent_clients_train_on_nothing_and_are_the_test_in_turn():
    found = absent("b", "a")
    assert list(found.train) == list(found.validation) == ["c"]
    assert [one.tags["client"] for one in found.test[:4]] == ["b", "a", "b", "a"]
    assert len(found.test) == 12 and found.card["n_clients"] == 1
    assert found.card["absent"] == {"clients": ["b", "a"], "asked": 12, "of_groups_trained_on": 0}


def test_absent_clients_are_not_asked_about_what_others_train_on():
    owners = [("a", "flu"), ("a", "gout"), ("a", "scurvy"), ("b", "flu"), ("b", "rickets"), ("b", "rickets")]
    records = [Document(f"{at}", {"client": who, "disease": what}) for at, (who, what) in enumerate(owners)]
    found = absent("b", group="disease", records=records)
    assert [one.tags["disease"] for one in found.test] == ["rickets", "rickets"]
    assert found.card["absent"]["of_groups_trained_on"] == 1


def test_names_of_absent_clients_are_checked():
    with pytest.raises(ConfigError, match=r"evaluation.absent: no client is called 'd'"):
        absent("d")
    with pytest.raises(ConfigError, match="found every client; at least one has to take part"):
        absent("a", "b", "c")
    with pytest.raises(ConfigError, match="found it with data that have a test of their own"):
        absent("a", test=[Document("asked")])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_hold_out_refuses_an_impossible_fraction(fraction):
    with pytest.raises(ConfigError, match=f"held-out fraction: found {fraction}, allowed is a number >= 0 and < 1"):
        held(fraction=fraction)


def test_hold_out_refuses_a_minimum_of_zero():
    with pytest.raises(ConfigError, match="held-out minimum: found 0"):
        held(minimum=0)


# ---------------------------------------------------------------------------------------------------------------- card

CARD = partition_card(
    [Document("x" * k, {"topic": "a" if k < 3 else "b", "id": str(k)}) for k in range(40)],
    {"zoe": [0, 1, 2], "adam": [3, 4, 5, 6, 7, 8, 9]},
    17,
)


def test_card_counts_who_holds_how_much():
    assert CARD["counts"] == {"zoe": 3, "adam": 7}


def test_card_counts_what_was_left_out():
    assert (CARD["n_examples"], CARD["n_assigned"], CARD["n_left_out"]) == (40, 10, 30)


def test_card_holds_the_seed():
    assert CARD["seed"] == 17


def test_card_has_a_histogram_of_each_tag():
    assert CARD["tags"]["topic"] == {
        "n_values": 2,
        "all": {"a": 3, "b": 7},
        "by_client": {"zoe": {"a": 3}, "adam": {"b": 7}},
    }


def test_card_only_counts_a_tag_of_many_values():
    examples = [Document("x", {"id": str(k)}) for k in range(33)]
    assert partition_card(examples, {"zoe": list(range(33))}, 0)["tags"] == {"id": {"n_values": 33}}


def test_card_lengths_lie_between_the_deciles():
    assert CARD["length_characters"] == {
        "edges": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        "all": [2, 1, 1, 1, 1, 1, 1, 1, 1],
        "by_client": {"zoe": [2, 1, 0, 0, 0, 0, 0, 0, 0], "adam": [0, 0, 1, 1, 1, 1, 1, 1, 1]},
    }


def test_card_digest_tells_assignments_apart():
    examples = [Document("x"), Document("y")]
    first, second = (partition_card(examples, {"a": [k], "b": [1 - k]}, 0)["sha256"] for k in range(2))
    assert first != second


def test_gini_equals_the_mean_absolute_difference():
    values = sizes(QuantitySkew())
    n = len(values)
    differences = sum(abs(a - b) for a in values for b in values)
    assert gini(values) == pytest.approx(differences / (2 * n * sum(values)))


def test_effective_number_of_equal_sizes_is_their_number():
    assert effective_number([7] * 5) == 5


def test_files_of_instructions_by_client_load_as_they_are(tmp_path):
    """KnowledgeSG's layout: `client0.json`, `client1.json`, a line each with `instruction` and `response`."""
    for number, count in enumerate((2, 3)):
        rows = [{"instruction": f"what is {at}?", "response": f"it is {number}"} for at in range(count)]
        (tmp_path / f"client{number}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = File(path=str(tmp_path), format="jsonl")
    examples = source.load()["train"]
    assert ByFile()(examples, 0, Random(0)) == {"client0.json": [0, 1], "client1.json": [2, 3, 4]}
    assert (examples[4].prompt[0].text, examples[4].reference) == ("what is 2?", "it is 1")
    with (tmp_path / "client1.json").open("a") as file:
        file.write('{"instruction": "what?"}\n')
    with pytest.raises(DataError, match=r"client1\.json, line 4: no column 'response'"):
        source.load()


def test_ten_examples_by_length_are_three_shards_that_cover_them():
    texts = [Document("x" * n) for n in (7, 3, 9, 1, 5, 2, 8, 4, 10, 6)]
    parts = [*ByLength()(texts, 3, Random(0)).values()]
    assert sorted(index for part in parts for index in part) == list(range(10)) and len(parts) == 3
    assert [sorted(len(texts[index].text) for index in part) for part in parts] == [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10]]


# --------------------------------------------------------------------------------------------------------- label skew


def labelled(counts):
    return [chat(f"{label} {i}", "a", label=label) for label, n in counts.items() for i in range(n)]


def label_skew(examples, n_clients, seed=0, **settings):
    return lookup(Partition, "label_skew")(**settings)(examples, n_clients, Random(seed))


def test_label_skew_deals_every_example_once_and_enough_to_each():
    parts = label_skew(labelled({"a": 60, "b": 50, "c": 40}), 5, beta=0.3)
    assert sorted(at for part in parts.values() for at in part) == list(range(150))
    assert min(map(len, parts.values())) >= 10


def test_label_skew_falls_with_beta():
    examples = labelled({str(i): 40 for i in range(10)})

    def classes(beta):
        parts = label_skew(examples, 8, beta=beta)
        return sum(len({examples[at].tags["label"] for at in part}) for part in parts.values())

    assert classes(0.05) < classes(0.5) < classes(50.0)


def test_label_skew_is_the_published_cut(monkeypatch):
    """By hand: shares given, the full client's set to zero, cut by the cumulated rest."""
    shares = iter([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
    monkeypatch.setattr("fedloom.data.partitions.label_skew.dirichlet", lambda *_: next(shares))
    parts = label_skew(labelled({"a": 10, "b": 8}), 3, least=0)
    # N / K = 6: the first client holds 7 of "a" and gets no "b"; the others share it equally.
    assert [len(part) for part in parts.values()] == [7, 2 + 4, 1 + 4]


def test_label_skew_without_enough_examples_is_refused_at_once():
    with pytest.raises(DataError, match=r"30 examples, 4 clients, beta 0\.5: not enough for 10 each"):
        label_skew(labelled({"a": 30}), 4)


def test_label_skew_ends_within_its_draws():
    """The setting in which the published loop did not end."""
    examples = labelled({str(i): 15 for i in range(10)})
    try:
        parts = label_skew(examples, 10, beta=0.05)
        assert min(map(len, parts.values())) >= 10
    except DataError as error:
        assert "150 examples, 10 clients, beta 0.05: no draw of 1000 gave every client 10" in str(error)


def test_label_skew_that_cannot_be_drawn_says_so():
    with pytest.raises(DataError, match=r"no draw of 3 gave every client 10; lower partition\.least"):
        label_skew(labelled({str(i): 15 for i in range(10)}), 15, beta=1e-4, redraws=3)


def test_label_skew_without_its_tag_names_example_and_tags():
    with pytest.raises(DataError, match="example 0 has no tag 'label'; present: kind"):
        label_skew([chat("a", "b", kind="x")] * 30, 2)
