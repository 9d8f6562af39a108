"""Clusters of like clients: who is in one, its limit cases, and whose model answers what."""

import json

import pytest
from safetensors.torch import load_file

from fedloom import api
from fedloom.base.errors import DataError
from fedloom.contracts.examples import Document
from fedloom.data.card import partition_card
from fedloom.results.per_client import models_of_clients
from fedloom.results.show import outcome
from fedloom.runs.arrangements.clustered import Clustered, most_frequent
from fedloom.runs.directory import RunDirectory
from support.small_runs import small_run

CARD = {
    "counts": {"anna": 3, "bo": 2, "cy": 2},
    "tags": {
        "language": {
            "n_values": 3,
            "by_client": {"anna": {"fr": 2, "pt": 1}, "bo": {"pt": 1, "es": 1}, "cy": {"fr": 2}},
        },
        "kind": {"n_values": 2, "by_client": {"anna": {"k0": 3}, "bo": {"k1": 2}}},
        "fact": {"n_values": 70},
    },
}


def clustered(folder, **changes):
    return small_run(folder, protocol="clustered", **changes)


def finished(folder, run):
    for _ in api.start(run, folder):
        pass
    return folder


def numbers(folder, *, phase, name="results.jsonl"):
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [
        (line["set"], line["index"], line["scores"], line["prediction"]) for line in lines if line["phase"] == phase
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One federation, one cluster of all or per client, every client alone, two clusters, sharing all or part."""
    folder = tmp_path_factory.mktemp("runs")
    tags = {"client": "owner", "domain": "kind", "owner": "owner"}
    data = {"name": "file", "path": str(folder / "data.jsonl"), "form": "alpaca", "tags": tags}
    pairs = {"north": ("client0", "client2"), "south": ("client1", "client3")}
    everyone = {"all": tuple(f"client{i}" for i in range(4))}
    sequential = {"data": data, "engine": {"name": "sequential"}}
    wanted = {
        "federated": small_run(folder, **sequential),
        "one": clustered(folder, cluster_by="owner", clusters={k: list(v) for k, v in everyone.items()}, **sequential),
        "each": clustered(folder, cluster_by="owner", **sequential),
        "alone": small_run(folder, protocol="local_only", **sequential),
        "two": clustered(folder, cluster_by="owner", clusters={k: list(v) for k, v in pairs.items()}, **sequential),
        "partly": clustered(
            folder, cluster_by="owner", clusters={k: list(v) for k, v in pairs.items()}, share="lora_A", **sequential
        ),
    }
    return {name: finished(folder / name, run) for name, run in wanted.items()}


def adapter(folder):
    return load_file(folder / "adapter_model.safetensors")


def test_client_belongs_to_its_most_frequent_value():
    assert most_frequent(CARD, "language")["anna"] == "fr"


def test_of_equally_frequent_values_the_first_in_the_alphabet_counts():
    assert most_frequent(CARD, "language")["bo"] == "es"


def grouped(by="language", **clusters):
    return Clustered(by=by, clusters=clusters).clients(CARD)


def test_values_of_a_family_form_one_cluster():
    assert grouped(iberian=["es", "pt"], gallic=["fr"]) == {"gallic": ["anna", "cy"], "iberian": ["bo"]}


def test_value_of_no_cluster_is_refused():
    with pytest.raises(DataError, match=r"clusters: 'es' is listed 0 times, allowed is once; .* listed: fr, pt"):
        grouped(one=["fr"], two=["pt"])


def test_value_of_two_clusters_is_refused():
    with pytest.raises(DataError, match="clusters: 'fr' is listed 2 times"):
        grouped(one=["fr", "es"], two=["fr"])


def test_client_without_the_tag_is_refused():
    with pytest.raises(DataError, match="client 'cy': none of its records has the tag 'kind'"):
        grouped("kind")


def test_tag_that_no_record_has_is_refused():
    with pytest.raises(DataError, match="no groups by the tag 'tongue', present: fact, kind, language"):
        most_frequent(CARD, "tongue")


def test_tag_of_many_values_is_refused():
    with pytest.raises(DataError, match=r"no groups by the tag 'fact', it has 70 values; allowed is .* at most 32"):
        most_frequent(CARD, "fact")


def test_advice_on_a_missing_language_is_true_for_the_benchmarks_files():
    with pytest.raises(DataError, match="fedllm_bench by a field `language` of its records, or by `languages_path`"):
        most_frequent(CARD | {"tags": {}}, "language")


def test_advice_on_another_missing_tag_says_which_source_cannot_have_it():
    with pytest.raises(DataError, match="file, hub and preset set it by `tags`, fedllm_bench has no such tag"):
        grouped("kind")


def card_of(tag, values):
    """The card of 40 clients, each with three records; `values` says the tag of the clients' records."""
    names = [f"user{i}" for i in range(40)]
    examples = [Document("x", {tag: values(i, k)}) for i in range(40) for k in range(3)]
    return partition_card(examples, {name: range(3 * i, 3 * i + 3) for i, name in enumerate(names)}, 0)


def test_many_clients_are_known_by_their_names():
    card = card_of("client", lambda i, k: f"user{i}")
    assert most_frequent(card, "client") == {f"user{i}": f"user{i}" for i in range(40)}


def test_many_clients_form_the_clusters_that_list_them():
    card = card_of("client", lambda i, k: f"user{i}")
    clusters = {"low": [f"user{i}" for i in range(20)], "high": [f"user{i}" for i in range(20, 40)]}
    assert Clustered(by="client", clusters=clusters).clients(card) == clusters


def test_many_languages_are_known_by_the_most_frequent_of_each_client():
    card = card_of("language", lambda i, k: f"language{i if k else 'x'}")
    assert most_frequent(card, "language") == {f"user{i}": f"language{i}" for i in range(40)}


@pytest.mark.parametrize("tag", ["client", "fact"])
def test_many_values_that_are_not_the_clients_names_stay_out_of_the_card(tag):
    assert card_of(tag, lambda i, k: f"owner{i}")["tags"] == {tag: {"n_values": 40}}


USERS = {f"user{i}": ("fr", "pt", "es")[i % 3] for i in range(34)}
SPOKEN = {"cluster_by": "language", "clusters": {"iberian": ["pt", "es"], "gallic": ["fr"]}}
LISTED = {
    "cluster_by": "client",
    "clusters": {
        "iberian": [user for user, language in USERS.items() if language != "fr"],
        "gallic": [user for user, language in USERS.items() if language == "fr"],
    },
}


def bench_run(folder, *, telling, languages, **changes):
    """A run by clusters over a small file of Fed-Aya's layout, whose records tell their language or do not."""
    records = {
        user: [
            {"instruction": f"w{3 + i % 60} w{4 + k}", "response": f"w{5 + k}"}
            | ({"language": language} if telling else {})
            for k in range(3)
        ]
        for i, (user, language) in enumerate(USERS.items())
    }
    (folder / "aya.json").write_text(json.dumps(records))
    (folder / "languages.json").write_text(json.dumps(USERS))
    data = {"name": "fedllm_bench", "path": str(folder / "aya.json")}
    data |= {"languages_path": str(folder / "languages.json")} if languages else {}
    small = {"rounds": 1, "clients_per_round": 4, "evaluation": {"metrics": [], "limit": 2, "resamples": 20}}
    return clustered(folder, data=data, **small, **changes)


@pytest.mark.parametrize(
    ("telling", "languages", "clusters"),
    [(True, False, SPOKEN), (False, True, SPOKEN), (False, False, LISTED)],
    ids=["told by the records", "told by a file", "every user listed"],
)
def test_a_benchmark_file_trains_by_language(tmp_path, telling, languages, clusters):
    folder = finished(tmp_path / "run", bench_run(tmp_path, telling=telling, languages=languages, **clusters))
    assert models_of_clients(outcome(RunDirectory.open(folder))) == {
        name: tuple(users) for name, users in sorted(LISTED["clusters"].items())
    }


def test_a_benchmark_file_without_languages_is_refused_with_what_to_do(tmp_path):
    run = bench_run(tmp_path, telling=False, languages=False, **SPOKEN)
    with pytest.raises(DataError, match=r"no groups by the tag 'language', present: client; .* `languages_path`"):
        finished(tmp_path / "run", run)


@pytest.mark.slow
def test_one_cluster_is_federated_bit_for_bit(runs):
    one, federated = adapter(runs["one"] / "adapters" / "all"), adapter(runs["federated"] / "adapter")
    assert all(one[name].equal(tensor) for name, tensor in federated.items())


def test_one_cluster_scores_as_federated(runs):
    assert numbers(runs["one"], phase="final") == numbers(runs["federated"], phase="final")


@pytest.mark.parametrize("client", range(4))
def test_cluster_per_client_is_training_alone(runs, client):
    each, alone = (adapter(runs[name] / "adapters" / f"client{client}") for name in ("each", "alone"))
    assert all((each[name] - tensor).abs().max() < 1e-4 for name, tensor in alone.items())  # rounding: one adds a delta


def test_two_clusters_end_with_different_models(runs):
    north, south = (adapter(runs["two"] / "adapters" / name) for name in ("north", "south"))
    assert any(not north[name].equal(tensor) for name, tensor in south.items())


def test_clusters_own_their_models(runs):
    final = outcome(RunDirectory.open(runs["two"])).results["final"]
    assert {one.owner for one in final} == {"north", "south"}


def test_cluster_answers_the_held_out_questions_of_its_own_clients(runs):
    final = outcome(RunDirectory.open(runs["two"])).results["final"]
    asked = {one.tags["client"] for one in final if one.owner == "north" and one.set == "validation"}
    assert asked == {"client0", "client2"}


def test_clients_own_their_models_where_some_numbers_stay_private(runs):
    owned = models_of_clients(outcome(RunDirectory.open(runs["partly"])))
    assert owned == {f"client{i}": (f"client{i}",) for i in range(4)}


def test_sampled_clients_are_shared_out_over_the_clusters(tmp_path):
    from fedloom.runs.prepared import prepare

    data = small_run(tmp_path).data
    run = clustered(
        tmp_path,
        cluster_by="owner",
        clusters={"big": ["client0", "client1", "client2"], "small": ["client3"]},
        clients_per_round=2,
        data={"name": "file", "path": str(data.path), "form": "alpaca", "tags": {"client": "owner", "owner": "owner"}},
    )
    assert [stage.plan.clients_per_round for stage in prepare(run).stages] == [2, 1]


def test_every_cluster_answers_the_whole_test_set(runs):
    final = outcome(RunDirectory.open(runs["two"])).results["final"]
    asked = [{one.index for one in final if one.owner == name and one.set == "test"} for name in ("north", "south")]
    assert asked[0] == asked[1]


def test_run_directory_knows_its_data_by_a_hash(runs):
    cards = [outcome(RunDirectory.open(runs[name])).card["data_sha256"] for name in ("federated", "two")]
    assert cards[0] == cards[1]


def test_run_directory_knows_its_base_weights_by_a_hash(runs):
    assert "sha256:" in outcome(RunDirectory.open(runs["two"])).card["base_id"]
