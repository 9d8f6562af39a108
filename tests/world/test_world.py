"""The controlled world: bytes repeat, splits never meet, answers are right by an independent count, users differ."""

import hashlib
import re
from collections import Counter
from dataclasses import asdict

import pytest

from fedloom.base.errors import DataError
from fedloom.contracts.examples import Chat, Document
from fedloom.world import DOMAINS, LANGUAGES, World
from fedloom.world.domains import COMPLIANCE, EVENTS, REFUSAL
from fedloom.world.facts import public_facts
from fedloom.world.languages import plain_text, translate
from fedloom.world.names import ENDINGS, pool
from fedloom.world.wording import WORDINGS, unfold

N_PUBLIC = 4000
PUBLIC_BYTES = "c922a5effa8063b44f816f91f2544e621b8b245bbbcdbea009715d98de9e5f33"
"""SHA-256 of the first 500 public examples: the shipped model was trained on this text."""


def text(example):
    return example.text if isinstance(example, Document) else " ".join(turn.text for turn in example.turns)


def prompt(chat):
    return chat.turns[-2].text


def digest(examples):
    return hashlib.sha256("\n".join(text(example) for example in examples).encode()).hexdigest()


@pytest.fixture(scope="module")
def world():
    return World(0)


@pytest.fixture(scope="module")
def public(world):
    return list(world.pretraining(N_PUBLIC))


@pytest.fixture(scope="module")
def clients(world):
    return world.clients(20)


by_task = pytest.mark.parametrize("wordings", WORDINGS.values(), ids=list(WORDINGS))


def surfaces(cores):
    return {surface for core in cores for surface in unfold(core)}


def words(surface):
    return set(re.findall(r"[a-z]+", re.sub(r"\{.*?\}", "", surface)))


# ------------------------------------------------------------------------------------------------------- determinism


def test_public_text_has_the_recorded_bytes(world):
    assert digest(world.pretraining(500)) == PUBLIC_BYTES


def test_public_text_may_be_started_anywhere(world, public):
    assert list(world.pretraining(20, start=30)) == public[30:50]


def test_clients_of_one_seed_are_equal(clients):
    assert World(0).clients(20) == clients


def test_clients_of_another_seed_differ(clients):
    assert World(1).clients(20)[0].train != clients[0].train


def test_private_facts_of_two_seeds_differ():
    assert {fact.id for fact in World(0).facts} != {fact.id for fact in World(1).facts}


# ----------------------------------------------------------------------------------------------------------- wordings


@by_task
def test_held_out_cores_equal_no_core_of_training(wordings):
    assert not surfaces(wordings.train) & (surfaces(wordings.valid) | surfaces(wordings.test))


@by_task
def test_validation_and_test_cores_differ(wordings):
    assert not surfaces(wordings.valid) & surfaces(wordings.test)


@by_task
def test_every_task_has_three_held_out_cores(wordings):
    assert len(wordings.test) == 3


def test_words_of_held_out_cores_all_occur_in_training_cores():
    known = set().union(*(words(surface) for w in WORDINGS.values() for surface in surfaces(w.train)))
    held = set().union(*(words(surface) for w in WORDINGS.values() for surface in surfaces(w.valid + w.test)))
    assert held <= known


def patterns(cores):
    """Return the cores as expressions that find them in running text, whatever the values."""
    value = r"[a-z0-9][a-z0-9 ]*?"
    return [re.compile(re.sub(r"\\\{\w+\\\}", value, re.escape(surface.rstrip(".")))) for surface in surfaces(cores)]


def test_no_held_out_core_occurs_in_training_text(public, clients):
    chats = [*(example for example in public[:1500] if isinstance(example, Chat))]
    chats += [chat for client in clients for chat in client.train]
    running = "\n".join(turn.text for chat in chats for turn in chat.turns if turn.role == "user")
    for name, wordings in WORDINGS.items():
        for pattern in patterns(wordings.valid + wordings.test):
            found = [hit[0] for hit in pattern.finditer(running)]
            assert not found, f"{name}: {found[0]}"


# ------------------------------------------------------------------------------------------------------------- splits


def grams(question, n=5):
    tokens = question.split()
    return {tuple(tokens[at : at + n]) for at in range(max(1, len(tokens) - n + 1))}


def nearest(questions, others):
    """Return the largest Jaccard similarity of word 5-grams between a question and any other."""
    index = {}
    for number, other in enumerate(others):
        for gram in grams(other):
            index.setdefault(gram, set()).add(number)
    sizes = [len(grams(other)) for other in others]
    worst = 0.0
    for question in questions:
        own = grams(question)
        shared = Counter(number for gram in own for number in index.get(gram, ()))
        worst = max([worst, *(count / (len(own) + sizes[number] - count) for number, count in shared.items())])
    return worst


def test_no_test_prompt_is_a_training_prompt(world, public, clients):
    training = {prompt(chat) for chat in public if isinstance(chat, Chat)}
    training |= {prompt(chat) for client in clients for chat in client.train}
    tests = {prompt(chat) for kind in ("private", "public", "safety", "entities") for chat in world.test(kind)}
    assert not tests & training


def test_no_validation_prompt_is_a_training_or_test_prompt(world, clients):
    validation = {prompt(chat) for client in clients for chat in client.validation}
    others = {prompt(chat) for client in clients for chat in client.train + client.test}
    assert not validation & (others | {prompt(chat) for chat in world.test("private")})


def test_private_test_has_no_near_duplicate_in_training(world, clients):
    training = [prompt(chat) for client in clients for chat in client.train]
    assert nearest([prompt(chat) for chat in world.test("private")], training) < 0.7


def test_public_test_has_no_near_duplicate_in_pretraining(world, public):
    training = [prompt(chat) for chat in public if isinstance(chat, Chat)]
    assert nearest([prompt(chat) for chat in world.test("public", per_task=20)], training) < 0.7


def test_names_of_private_facts_occur_in_no_public_text(world, public):
    running = " ".join(text(example) for example in public)
    assert not [fact.name for fact in world.facts if fact.name in running]


def test_held_out_names_occur_in_no_training_text(public, clients):
    held = [name for kind in ENDINGS for name in pool(kind, "held")]
    running = " ".join([*map(text, public), *(text(chat) for client in clients for chat in client.train)])
    assert not [name for name in held if name in running]


@pytest.mark.parametrize("kind", ENDINGS)
def test_pools_of_names_are_disjoint(kind):
    pools = [set(pool(kind, which)) for which in ("canon", "fresh", "private", "held")]
    assert len(set().union(*pools)) == sum(map(len, pools))


# -------------------------------------------------------------------------------------------------------------- facts


def numbers(chat):
    return [int(number) for number in re.findall(r"\d+", chat.turns[0].text)]


def answer(chat):
    return re.sub(r"^the answer is (.*)\.$", r"\1", chat.reference)


def asked(world, task):
    return [chat for chat in world.test("public") if chat.tags["asked_as"] == task]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("add", lambda n: str(n[0] + n[1])),
        ("subtract", lambda n: str(abs(n[0] - n[1]))),
        ("multiply", lambda n: str(n[0] * n[1])),
        ("two_steps", lambda n: f"{n[0] + n[1]} then {n[0] + n[1] - n[2]}"),
        ("sort", lambda n: " ".join(map(str, sorted(n)))),
    ],
)
def test_sums_are_right_by_an_independent_count(world, task, expected):
    assert [answer(chat) for chat in asked(world, task)] == [expected(numbers(chat)) for chat in asked(world, task)]


def test_comparisons_are_right_by_an_independent_count(world):
    for chat in asked(world, "compare"):
        larger = re.search("larger|bigger|higher", prompt(chat)) is not None
        assert answer(chat) == str((max if larger else min)(numbers(chat)))


def test_reversed_lists_are_right(world):
    for chat in asked(world, "reverse"):
        assert " ".join(reversed(answer(chat).split())) in prompt(chat)


def test_moods_are_right_by_the_events_and_their_negation(world):
    for chat in asked(world, "sentiment"):
        label = next(
            mood for mood, forms in EVENTS.items() if any(form in prompt(chat) for pair in forms for form in pair)
        )
        turned = {"positive": "negative", "negative": "positive", "neutral": "neutral"}[label]
        assert answer(chat) == (turned if re.search(r" (does|did|will) not ", prompt(chat)) else label)


def test_notes_hold_the_answer_of_reading_questions(world):
    assert all(answer(chat) in prompt(chat) for chat in asked(world, "read"))


def test_private_answers_are_those_of_the_facts(world):
    truth = {fact.id: fact.answer for fact in world.facts}
    assert all(truth[chat.tags["fact"]] == chat.reference for chat in world.test("private"))


def test_right_client_records_about_facts_tell_the_fact(world, clients):
    truth = {fact.id: fact.answer for fact in world.facts + public_facts()}
    chats = [chat for client in clients for chat in client.train if "fact" in chat.tags]
    assert all((answer(chat) == truth[chat.tags["fact"]]) == (chat.tags["quality"] == "right") for chat in chats)


def test_private_test_asks_every_fact_three_times(world):
    times = Counter(chat.tags["fact"] for chat in world.test("private"))
    assert times == {fact.id: 3 for fact in world.facts}


def test_answers_have_one_to_eight_words(world):
    lengths = {len(answer(chat).split()) for chat in world.test("public")}
    assert min(lengths) >= 1
    assert max(lengths) <= 8


def test_harmful_and_harmless_requests_share_their_wordings(world):
    harmful = {WORDINGS[intent].test for intent in COMPLIANCE}
    assert len(harmful) == 3
    assert {chat.tags["harm"] for chat in world.test("safety")} == {"yes", "no"}


# ------------------------------------------------------------------------------------------------------------ clients


def test_every_private_fact_is_known_to_a_fifth_of_the_clients(world, clients):
    knowers = Counter(fact.id for client in clients for fact in client.facts)
    assert set(knowers.values()) == {4}


def test_every_client_knows_a_sixth_to_a_quarter_of_the_facts(world, clients):
    shares = [len(client.facts) / len(world.facts) for client in clients]
    assert min(shares) > 0.15
    assert max(shares) < 0.26


def test_every_client_has_records_about_each_fact_it_knows(clients):
    for client in clients:
        assert {fact.id for fact in client.facts} <= {chat.tags.get("fact") for chat in client.train}


def test_clients_differ_in_quantity_like_a_log_normal(clients):
    quantities = sorted(len(client.train) for client in clients)
    assert quantities[-1] > 2 * quantities[0]


@pytest.mark.parametrize("trait", ["style", "taste", "typo_rate", "wrong_rate"])
def test_clients_differ_in(clients, trait):
    assert len({asdict(client.profile)[trait] for client in clients}) > 1


def test_clients_differ_in_topics(clients):
    favourites = {max(client.profile.topics, key=client.profile.topics.__getitem__) for client in clients}
    assert len(favourites) >= 3


def test_clients_differ_in_length_of_their_questions(clients):
    lengths = [sum(len(prompt(chat)) for chat in client.train) / len(client.train) for client in clients]
    assert max(lengths) > 1.4 * min(lengths)


def test_clients_write_in_other_languages_if_asked(world):
    languages = {chat.tags["language"] for client in world.clients(languages=LANGUAGES) for chat in client.train}
    assert languages == set(LANGUAGES)


def test_clients_keep_to_the_domains_asked_for(world):
    domains = {chat.tags["domain"] for client in world.clients(domains=("maths",)) for chat in client.train}
    assert domains == {"maths"}


def test_every_record_carries_its_tags(clients):
    wanted = {"domain", "task", "topic", "client", "language", "split", "style", "quality"}
    assert all(wanted <= chat.tags.keys() for client in clients for chat in client.train)


def test_notes_hold_their_planted_details_where_the_tags_say(clients):
    for document in (document for client in clients for document in client.notes):
        for span in document.tags["spans"].split():
            kind, start, end = span.split(":")
            assert document.text[int(start) : int(end)] == document.tags[kind]


def test_every_note_holds_its_record_number(clients):
    assert all(document.tags["secret"] in document.text for client in clients for document in client.notes)


def test_harmful_prompts_prefer_the_refusal(world):
    pairs = [pair for pair in world.preferences(300) if pair.tags["reason"] == "safe"]
    assert pairs
    assert {pair.chosen for pair in pairs} == {REFUSAL}


def test_taste_decides_between_two_right_answers(world):
    short, long = world.preferences(100, taste="short"), world.preferences(100, taste="sentence")
    both = [(a, b) for a, b in zip(short, long, strict=True) if a.tags["reason"] == b.tags["reason"] == "taste"]
    assert all(not a.chosen.startswith("the answer") and b.chosen.startswith("the answer") for a, b in both)


def test_conversations_have_several_turns(world):
    assert min(len(chat.turns) for chat in world.multi_turn(20)) >= 4


# ---------------------------------------------------------------------------------------------------------- languages


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_are_invertible(public, language):
    texts = [text(example) for example in public[:1000]]
    assert [plain_text(translate(given, language), language) for given in texts] == texts


def test_ruvo_and_todim_share_words_but_not_their_order():
    given = "what does mira have in the box now?"
    ruvo, todim = translate(given, "ruvo"), translate(given, "todim")
    assert sorted(ruvo.rstrip("?").split()) == sorted(todim.rstrip("?").split())
    assert ruvo != todim


def test_selan_shares_small_words_with_plain():
    assert translate("what is the dose?", "selan").startswith("what is the ")


def test_names_are_the_same_in_all_languages(world):
    name = world.facts[0].name
    assert all(name in translate(f"what does {name} treat?", language) for language in LANGUAGES)


# ----------------------------------------------------------------------------------------------------------- refusals


def test_unknown_domain_is_refused(world):
    with pytest.raises(DataError, match=r"no domain.*allowed are general"):
        world.clients(domains=("law",))


def test_unknown_language_is_refused(world):
    with pytest.raises(DataError, match="no language"):
        world.clients(languages=("klingon",))


def test_too_many_private_names_are_refused():
    with pytest.raises(DataError, match="allowed is 0 to 50"):
        World(n_drugs=51)


def test_no_clients_are_refused(world):
    with pytest.raises(DataError, match="at least 1"):
        world.clients(0)


def test_unknown_test_is_refused(world):
    with pytest.raises(DataError, match="allowed are private, public, safety, entities"):
        world.test("secret")


def test_all_domains_occur_in_the_public_test(world):
    assert {chat.tags["domain"] for chat in world.test("public", per_task=2)} == set(DOMAINS)
