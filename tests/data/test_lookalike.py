"""The look-alikes of FedLLM-Bench: published sizes, splits that never meet, families that contradict each other."""

import logging
import statistics
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from fedloom.base.config import build
from fedloom.base.errors import ConfigError
from fedloom.contracts.examples import Chat, Preference, chat
from fedloom.data.holdout import normalised
from fedloom.data.sources.lookalike import LookAlike
from fedloom.world.crowds import CROWDS, client_sizes
from fedloom.world.families import FAMILIES, dictionary, spoken
from fedloom.world.names import every_name
from fedloom.world.words import WORDS

PUBLISHED = {  # FedLLM-Bench, clients, samples, standard deviation of samples per client
    "aya": (38, 25_513, 815),
    "chatbot_it": (237, 6_166, 33),
    "wildchat": (100, 52_703, 477),
    "wildchat_multi": (50, 15_406, None),
    "chatbot_pa": (747, 9_508, 21),
}
each_set = pytest.mark.parametrize("dataset", PUBLISHED)


@pytest.fixture(scope="module")
def small():
    return {dataset: LookAlike(dataset=dataset, scale=0.02).load() for dataset in PUBLISHED}


def by_client(examples):
    return Counter(example.tags["client"] for example in examples)


def prompt(example):
    return example.prompt[0].text


# --------------------------------------------------------------------------------------------------------------- sizes


@each_set
def test_clients_are_as_many_as_published(dataset):
    assert len(client_sizes(dataset)) == PUBLISHED[dataset][0]


@each_set
def test_records_are_as_many_as_published(dataset):
    assert sum(client_sizes(dataset)) == pytest.approx(PUBLISHED[dataset][1], rel=0.001)


@pytest.mark.parametrize("dataset", [name for name, row in PUBLISHED.items() if row[2]])
def test_deviation_is_the_published_one(dataset):
    assert statistics.pstdev(client_sizes(dataset)) == pytest.approx(PUBLISHED[dataset][2], rel=0.01)


def test_sizes_are_skewed_as_a_log_normal():
    sizes = client_sizes("wildchat")
    assert statistics.median(sizes) == pytest.approx(statistics.geometric_mean(sizes), rel=0.05)


@each_set
def test_no_client_has_less_than_two_records(dataset):
    assert min(client_sizes(dataset)) >= 2


def test_a_full_load_has_every_record():
    counts = by_client(LookAlike(dataset="chatbot_it").load()["train"])
    assert sorted(counts.values()) == list(client_sizes("chatbot_it"))


@each_set
def test_every_client_stays_when_scaled_down(dataset, small):
    assert len(by_client(small[dataset]["train"])) == PUBLISHED[dataset][0]


def test_scale_multiplies_every_clients_records():
    full, half = (by_client(LookAlike(dataset="chatbot_it", scale=scale).load()["train"]) for scale in (1.0, 0.5))
    assert half == {client: max(2, round(count / 2)) for client, count in full.items()}


def test_validation_is_the_same_number_for_every_client(small):
    assert set(by_client(small["chatbot_pa"]["validation"]).values()) == {4}


def test_clients_may_hold_nothing_out():
    assert not LookAlike(dataset="aya", scale=0.02, validation=0).load()["validation"]


@each_set
def test_the_test_has_the_wanted_size(dataset, small):
    assert len(small[dataset]["test"]) == 160


# -------------------------------------------------------------------------------------------------------------- splits


@each_set
def test_seed_gives_the_same_records(dataset, small):
    assert LookAlike(dataset=dataset, scale=0.02).load() == small[dataset]


@each_set
def test_another_seed_gives_other_records(dataset, small):
    assert LookAlike(dataset=dataset, scale=0.02, seed=1).load()["train"] != small[dataset]["train"]


@each_set
@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_held_out_prompt_is_trained_on(dataset, split, small):
    trained = {prompt(example) for example in small[dataset]["train"]}
    assert not [example for example in small[dataset][split] if prompt(example) in trained]


@each_set
def test_no_question_of_the_test_repeats(dataset, small):
    texts = [normalised(example) for example in small[dataset]["test"]]
    assert len(set(texts)) == len(texts)


@each_set
def test_training_records_are_marked_as_synthetic(dataset, small):
    assert {example.tags["source"] for example in small[dataset]["train"]} == {"synthetic"}


def test_loading_says_that_the_data_are_synthetic(caplog):
    caplog.set_level(logging.INFO)
    LookAlike(dataset="chatbot_it", scale=0.02).load()
    assert "SYNTHETIC look-alike of chatbot_it: 237 clients" in caplog.text


# ------------------------------------------------------------------------------------------------------------- content


def test_a_private_fact_is_known_to_few_clients(small):
    knowers = {}
    for example in small["wildchat"]["train"]:
        if example.tags.get("part") == "private":
            knowers.setdefault(example.tags["fact"], set()).add(example.tags["client"])
    assert max(map(len, knowers.values())) <= 10


@each_set
def test_every_private_fact_of_the_test_is_known_to_a_client(dataset, small):
    known = {
        (example.tags["fact"], example.tags["language"])
        for example in LookAlike(dataset=dataset, scale=0.1).load()["train"]
        if example.tags.get("part") == "private"
    }
    family = {member: members for members in FAMILIES.values() for member in members}
    asked = [example.tags for example in small[dataset]["test"] if example.tags.get("part") == "private"]
    assert all(any((tags["fact"], each) in known for each in family[tags["language"]]) for tags in asked)


def test_half_of_the_held_out_facts_of_clients_are_told_to_others_only(small):
    told, asked = {}, []
    data = LookAlike(dataset="wildchat", scale=0.2).load()
    for example in data["train"]:
        told.setdefault(example.tags["client"], set()).add(example.tags.get("fact"))
    for example in data["validation"]:
        if example.tags.get("part") == "private":
            asked.append(example.tags["fact"] in told[example.tags["client"]])
    assert sum(asked) / len(asked) == pytest.approx(0.5, abs=0.02)


def test_dialogues_have_several_turns(small):
    assert {len(example.turns) // 2 for example in small["wildchat_multi"]["train"]} == {2, 3, 4}


def test_preferences_are_pairs(small):
    assert {type(example) for example in small["chatbot_pa"]["train"]} == {Preference}


def test_a_client_has_one_taste(small):
    tastes = {}
    for example in LookAlike(dataset="chatbot_pa", scale=0.5).load()["train"]:
        if example.tags["reason"] == "taste":
            tastes.setdefault(example.tags["client"], set()).add(example.tags["taste"])
    assert set(map(len, tastes.values())) == {1}


def test_no_rejected_answer_is_the_chosen_one(small):
    assert not [pair for pair in small["chatbot_pa"]["train"] if pair.chosen == pair.rejected]


def test_the_preference_test_has_pairs_of_right_and_of_safe(small):
    pairs = [example for example in small["chatbot_pa"]["test"] if isinstance(example, Preference)]
    assert Counter(pair.tags["reason"] for pair in pairs).keys() == {"right", "safe"}


def test_the_preference_test_asks_about_dangers_and_harmless_things(small):
    chats = [example for example in small["chatbot_pa"]["test"] if isinstance(example, Chat)]
    assert {example.tags["harm"] for example in chats} == {"yes", "no"}


# ----------------------------------------------------------------------------------------------------------- languages

LANGUAGES = [language for members in FAMILIES.values() for language in members]
strangers = pytest.mark.parametrize(
    ("one", "other"),
    [pair for pair in combinations(LANGUAGES, 2) if not any(set(pair) <= set(f) for f in FAMILIES.values())],
)
relatives = pytest.mark.parametrize(
    ("one", "other"), [pair for members in FAMILIES.values() for pair in combinations(members, 2)]
)


def shared(one, other):
    first, second = dictionary(one), dictionary(other)
    return sum(first[word] == second[word] for word in first) / len(first)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_a_permutation_of_the_vocabulary(language):
    table = dictionary(language)
    assert sorted(table.values()) == sorted(table)


@relatives
def test_relatives_share_most_words(one, other):
    assert shared(one, other) > 0.55


@relatives
def test_relatives_are_not_equal(one, other):
    assert shared(one, other) < 0.9


@strangers
def test_families_contradict_each_other_in_nearly_every_word(one, other):
    assert shared(one, other) < 0.02


def test_plain_is_itself():
    assert all(word == image for word, image in dictionary("plain").items())


def test_names_and_numbers_are_the_same_in_all_languages():
    assert spoken(chat("zorvex 12", "7"), "tesa").turns == chat("zorvex 12", "7").turns


def test_the_vocabulary_covers_what_clients_say():
    data = LookAlike(dataset="wildchat", scale=0.02).load()
    clean = [example for example in data["validation"] if example.tags["task"] not in ("copy", "pick")]
    text = " ".join(turn.text for example in clean for turn in example.turns)
    said = set("".join(c if c.isalpha() else " " for c in text).split())
    assert said - dictionary("plain").keys() - every_name() - set(WORDS["people"]) == set()


@each_set
def test_every_client_writes_in_one_language(dataset, small):
    pairs = {(example.tags["client"], example.tags["language"]) for example in small[dataset]["train"]}
    assert len(pairs) == PUBLISHED[dataset][0]


def test_rare_languages_have_the_least_records(small):
    counts = Counter(example.tags["language"] for example in LookAlike(dataset="aya", scale=0.2).load()["train"])
    rarest = sorted(counts, key=lambda language: counts[language])[:3]
    assert sorted(rarest) == ["marun", "planu", "teson"]


def test_the_test_asks_as_much_in_every_language(small):
    assert Counter(example.tags["language"] for example in small["aya"]["test"]) == dict.fromkeys(LANGUAGES, 20)


def test_every_question_of_the_test_has_a_domain(small):
    assert all(example.tags["domain"] for example in small["aya"]["test"])


def test_choosing_languages_changes_nothing_of_the_clients_kept(small):
    chosen = LookAlike(dataset="aya", scale=0.02, languages=tuple(FAMILIES["mar"])).load()["train"]
    assert chosen == [example for example in small["aya"]["train"] if example.tags["language"] in FAMILIES["mar"]]


def test_choosing_languages_keeps_their_questions(small):
    source = LookAlike(dataset="aya", scale=0.02, languages=tuple(FAMILIES["mar"]), test=60)
    assert source.load()["test"] == [e for e in small["aya"]["test"] if e.tags["language"] in FAMILIES["mar"]]


def test_a_language_that_nobody_speaks_is_refused():
    with pytest.raises(
        ConfigError, match=r"languages: found \['todim'\], the look-alike of aya has plain, planu, mari"
    ):
        LookAlike(dataset="aya", languages=("todim",))


def test_an_unknown_data_set_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"dataset: found 'chatbot_ti'\. Did you mean 'chatbot_it'"):
        build(LookAlike, {"dataset": "chatbot_ti"})


@pytest.mark.parametrize("scale", [0, 1.5])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(ConfigError, match=r"scale: found .*, allowed is a number > 0 and <= 1"):
        LookAlike(scale=scale)


def test_a_crowd_adds_up_its_clients():
    assert replace(CROWDS["aya"], languages={"plain": 2, "mari": 3}).n_clients == 5
