"""Own facts and those of others: who is asked what, what a shared model counts, and when nothing is told."""

import json
from dataclasses import replace

import pytest
from markupsafe import escape

from fedloom import api
from fedloom.base.mean import Mean
from fedloom.benchmark.page.page import page
from fedloom.results.knowledge import FACTS, knowledge, knowledge_record
from fedloom.results.outcome import outcome
from fedloom.results.per_client import by_knowledge
from fedloom.results.show import compare
from fedloom.runs.directory import RunDirectory
from fedloom.world import World
from support.small_runs import small_run
from support.suites import answers, made

KNOWS = {"anna": ["f0"], "ben": ["f1", "f2"]}
ABOUT = ["f0", "f1", "f2", "f3"]


def asked(values, *, owner="", **more):
    return made(answers(values, owner=owner, fact=ABOUT, part="private"), card={"knows": KNOWS}, **more)


def shared(*values):
    return replace(asked(values, base=answers([0.0] * 4, fact=ABOUT)), label="FedAvg")


def local(of_anna, of_ben):
    told = [*answers(of_anna, owner="anna", fact=ABOUT), *answers(of_ben, owner="ben", fact=ABOUT)]
    base = answers([0.0] * 4, fact=ABOUT)
    return replace(made(told, base=base, card={"knows": KNOWS}), label="local_only")


def value(run, facts):
    return by_knowledge(run, facts).table("exact_match").value


def test_model_of_a_client_answers_its_own_facts():
    assert value(local([1, 0, 0, 0], [0, 1, 0, 0]), "own") == pytest.approx(2 / 3)


def test_model_of_a_client_is_asked_the_rest_as_facts_of_others():
    assert value(local([1, 1, 0, 0], [1, 1, 1, 0]), "others") == pytest.approx(2 / 5)


def test_shared_model_counts_once_for_each_client():
    # Anna's own f0, Ben's own f1 and f2; of others Anna is asked f1 to f3, Ben f0 and f3.
    assert value(shared(1, 0, 0, 0), "own") == pytest.approx(1 / 3)
    assert value(shared(1, 0, 0, 0), "others") == pytest.approx(1 / 5)


def test_questions_without_the_tag_are_left_out():
    run = replace(shared(1, 1, 1, 1), results={"final": tuple(answers([0.0, 0.0]))})
    assert not by_knowledge(run, "own").results["final"]


def test_model_of_a_cluster_counts_for_the_clients_of_the_cluster():
    settings = {"protocol": "clustered", "cluster_by": "language", "clusters": {}}
    tags = {"language": {"n_values": 1, "by_client": {"anna": {"fr": 1}, "ben": {"fr": 1}}}}
    card = {"knows": KNOWS, "counts": {"anna": 1, "ben": 1}, "tags": tags}
    run = made(answers([1, 1, 0, 0], owner="fr", fact=ABOUT), card=card, **settings)
    assert value(run, "own") == pytest.approx(2 / 3)


def told(*runs):
    return knowledge(compare(runs))


def test_small_table_has_a_row_for_the_base_and_for_each_kind():
    (table,), _ = told(shared(1, 1, 1, 1), local([1, 0, 0, 0], [0, 1, 1, 0]))
    assert table.header == ("model", *FACTS)
    assert [(row[0], [cell.split()[0] for cell in row[1:]]) for row in table.rows] == [
        ("base", ["0.000", "0.000", "0.000"]),
        ("FedAvg", ["1.000", "1.000", "1.000"]),
        ("local_only", ["1.000", "0.000", "0.375"]),
    ]


def test_sentence_says_what_federation_gives_and_what_not():
    _, (sentence,) = told(shared(1, 1, 1, 1), local([1, 0, 0, 0], [0, 1, 1, 0]))
    assert sentence.startswith("FedAvg less local_only: +1.000 [")
    assert "on what only other clients know, +0.000 [" in sentence
    assert sentence.endswith("on what a client's own records tell (no difference shown).")


def test_without_training_alone_beside_it_there_is_no_sentence():
    tables, sentences = told(shared(1, 1, 1, 1))
    assert len(tables) == 1 and not sentences


def test_nothing_is_told_where_a_run_does_not_say_what_clients_know():
    silent = replace(local([1, 0, 0, 0], [0, 1, 1, 0]), card={"data_sha256": "same", "base_id": "tiny sha256:1"})
    assert told(shared(1, 1, 1, 1), silent) == ([], [])


def test_a_kind_of_facts_that_is_never_asked_for_is_left_empty():
    """As where a limit leaves questions of one domain alone, about which a client has no records."""
    runs = [shared(1, 1, 1, 1), local([1, 0, 0, 0], [0, 1, 1, 0])]
    nobody = [replace(run, card=run.card | {"knows": {"anna": [], "ben": []}}) for run in runs]
    (table,), sentences = told(*nobody)
    assert [row[1] for row in table.rows] == ["", "", ""] and not sentences
    assert set(knowledge_record(compare(nobody))["gains"]) == {"others' facts", "all"}


def test_record_is_json_with_numbers():
    record = knowledge_record(compare([shared(1, 1, 1, 1), local([1, 0, 0, 0], [0, 1, 1, 0])]))
    found = json.loads(json.dumps(record, allow_nan=False))
    assert (
        found["values"]["local_only"]["own facts"]["value"] == 1.0 and found["gains"]["others' facts"]["value"] == 1.0
    )


def test_first_score_besides_the_loss_is_told():
    run = shared(1, 1, 1, 1)
    both = [replace(one, scores={"loss": Mean(1, 1), **one.scores}) for one in run.results["final"]]
    assert (
        knowledge_record(compare([replace(run, results={**run.results, "final": tuple(both)})]))["score"]
        == "exact_match"
    )


# ------------------------------------------------------------------------------------------------------ of a real run

WORLD = {"name": "world", "n_clients": 3, "records": 8, "n_drugs": 2, "n_companies": 1, "knowers_share": 0.7}
QUICK = {"rounds": 1, "evaluation": {"max_new_tokens": 1, "resamples": 20}, "model": {"name": "causal_lm"}}
PRIVATE = {
    "weighting": "uniform",
    "privacy": {"name": "gaussian", "unit": "client", "epsilon": 0.0, "noise_multiplier": 1.0, "delta": 0.1},
}


def ended(folder, **changes):
    table = {**QUICK, "task": {"name": "sft"}, "data": WORLD, **changes}
    for _ in api.start(small_run(folder, **table), folder / "run"):
        pass
    return outcome(RunDirectory(folder / "run"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ended(tmp_path_factory.mktemp("knowledge"))


def test_card_says_which_facts_of_the_test_each_client_has_records_about(world):
    clients = World(0, 2, 1).clients(3, records=8, knowers_share=0.7)
    known = {client.name: {record.tags.get("fact", "") for record in client.train} for client in clients}
    private = {fact.id for fact in World(0, 2, 1).facts}
    assert {name: set(facts) for name, facts in world.card["knows"].items()} == {
        name: facts & private for name, facts in known.items()
    }


def test_questions_of_clients_keep_of_their_fact_a_number(world):
    own = [one for one in world.results["final"] if one.set == "validation" and "fact" in one.tags]
    assert own and all(one.tags["fact"].isdigit() and not one.prompt for one in own)


def test_number_is_the_same_where_clients_are_asked_about_one_fact(world):
    asked = [chat for client in World(0, 2, 1).clients(3, records=8, knowers_share=0.7) for chat in client.validation]
    facts = [chat.tags["fact"] for chat in asked if "fact" in chat.tags]
    numbers = [one.tags["fact"] for one in world.results["final"] if one.set == "validation" and "fact" in one.tags]
    assert len(set(facts)) < len(facts)
    assert [numbers.index(number) for number in numbers] == [facts.index(fact) for fact in facts]


def test_the_page_has_who_knows_what(tmp_path):
    ended(tmp_path)
    text = page(tmp_path / "run")
    table = text[text.index("Who knows what") :]
    assert "exact match by whose facts are asked for" in table and all(escape(name) in table for name in FACTS)


def test_the_page_of_runs_that_do_not_say_has_no_such_part(tmp_path):
    ended(tmp_path, **PRIVATE)
    assert "Who knows what" not in page(tmp_path / "run")


def test_privacy_hides_what_clients_know(tmp_path):
    assert "knows" not in ended(tmp_path, **PRIVATE).card
