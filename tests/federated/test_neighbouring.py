"""Data sets that differ in one record train on the same others: what would break that is refused with privacy."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup, names
from fedloom.contracts.examples import chat
from fedloom.contracts.federated import Partition, Source
from fedloom.data.holdout import hold_out_by_text, normalised
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support.small_runs import small_run, small_table

PRIVATE = {"weighting": "uniform", "privacy": {"name": "gaussian", "unit": "example", "delta": 1e-3}}
units = pytest.mark.parametrize("unit", ["example", "client", "client_local"])


def private_table(folder, unit, **changes):
    return small_table(folder, **PRIVATE | {"privacy": PRIVATE["privacy"] | {"unit": unit}} | changes)


@units
def test_the_largest_clients_alone_are_refused(tmp_path, unit):
    table = private_table(tmp_path, unit, partition={"name": "by_key", "keep": "largest"}, clients=3)
    with pytest.raises(ConfigError, match=r"privacy: found partition\.keep = \"largest\" with clients = 3"):
        read_run(table)


def test_largest_of_all_clients_chooses_nothing(tmp_path):
    assert read_run(private_table(tmp_path, "client", partition={"name": "by_key", "keep": "largest"})).clients == 0


@units
@pytest.mark.parametrize(
    ("data", "setting"),
    [
        ({"name": "file", "path": "x.jsonl", "unique": "instruction"}, r"data\.unique = 'instruction'"),
        ({"name": "hub", "path": "x", "unique": "id"}, r"data\.unique = 'id'"),
        ({"name": "hub", "path": "x", "split": "train[:100]"}, r"data\.split = 'train\[:100\]'"),
        ({"name": "preset", "preset": "math_instruct"}, r"data\.preset = 'math_instruct', which keeps the first"),
        ({"name": "fedllm_bench", "path": "x.json", "clients": 5}, r"data\.clients = 5"),
        (
            {"name": "file", "path": "x.jsonl", "malformed": "drop"},
            r"data\.form = 'auto' with data\.malformed = 'drop'",
        ),
        ({"name": "hub", "path": "x", "malformed": "drop"}, r"data\.form = 'auto' with data\.malformed = 'drop'"),
    ],
)
def test_what_brings_records_in_is_refused(tmp_path, unit, data, setting):
    with pytest.raises(ConfigError, match=rf"privacy: found {setting}.* where one record leaves, another comes in"):
        read_run(private_table(tmp_path, unit, data=data))


@pytest.mark.parametrize("name", names(Source))
def test_sources_at_their_defaults_bring_nothing_in(name):
    assert lookup(Source, name)().brings_in() == ""


@pytest.mark.parametrize("name", sorted(set(names(Partition)) - {"by_length"}))
def test_partitions_at_their_defaults_bring_nothing_in(name):
    assert lookup(Partition, name)().brings_in(3) == ""


@units
@pytest.mark.parametrize(
    "partition",
    [{"name": "by_length"}, {"name": "dirichlet", "by": "length"}, {"name": "dirichlet", "by": "quality"}],
)
def test_clients_cut_by_all_records_lengths_are_refused(tmp_path, unit, partition):
    with pytest.raises(ConfigError, match=r"privacy: found partition\..* follow from all records"):
        read_run(private_table(tmp_path, unit, partition=partition, clients=3))


class SilentPartition(Partition):
    name = "silent"
    __call__ = None  # never dealt


class SilentSource(Source):
    name = "silent"
    load = None  # never loaded


@pytest.mark.parametrize("silent", [{"partition": SilentPartition()}, {"data": SilentSource()}])
def test_plug_ins_that_do_not_say_are_refused(tmp_path, silent):
    with pytest.raises(ConfigError, match=r"privacy: found \w+\.name = 'silent', a \w+ that says nothing of it"):
        replace(read_run(private_table(tmp_path, "example")), **silent)


def test_epochs_beside_sampled_clients_are_refused_with_privacy_of_clients(tmp_path):
    local = {"lr": 0.02, "epochs": 1.0, "batch": 3}
    with pytest.raises(ConfigError, match=r"local\.epochs: found 1 with privacy of clients and clients_per_round"):
        read_run(private_table(tmp_path, "client", local=local, clients_per_round=2))
    assert read_run(private_table(tmp_path, "client", local=local)).local.epochs == 1


def test_without_privacy_they_stay_allowed(tmp_path):
    assert small_run(tmp_path, partition={"name": "by_key", "keep": "largest"}, clients=3).clients == 3


def test_ranks_by_place_are_refused_with_privacy_of_clients(tmp_path):
    with pytest.raises(ConfigError, match="ranks: found several with privacy of clients"):
        read_run(private_table(tmp_path, "client", ranks=[1, 2]))


def test_holding_out_a_number_of_records_is_refused_with_privacy(tmp_path):
    evaluation = {"metrics": [], "resamples": 20, "holdout_by": "count"}
    with pytest.raises(ConfigError, match=r"evaluation\.holdout_by: found 'count' with privacy"):
        read_run(private_table(tmp_path, "example", evaluation=evaluation))


# ------------------------------------------------------------------------------------------- what is held out, by text

TEXTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=2, max_size=30)


def split(records, seed=0, fraction=0.4):
    """Texts trained on and held out, by client."""
    examples = [chat(f"q{text}", "a") for _, text in records]
    indices = {f"c{k}": [i for i, (client, _) in enumerate(records) if client == k] for k in range(3)}
    found = hold_out_by_text(indices, examples, fraction=fraction, seed=seed)
    return {
        client: tuple(sorted(normalised(examples[i]) for i in part[client]) for part in (found.train, found.held))
        for client in indices
    }


@given(TEXTS, st.data())
def test_a_record_that_leaves_takes_itself_alone(records, data):
    gone = data.draw(st.integers(0, len(records) - 1))
    whole, rest = split(records), split(records[:gone] + records[gone + 1 :])
    client = f"c{records[gone][0]}"
    assert {k: v for k, v in whole.items() if k != client} == {k: v for k, v in rest.items() if k != client}
    lost = sum(len(a) - len(b) for a, b in zip(whole[client], rest[client], strict=True))
    assert lost == 1 and all(set(b) <= set(a) for a, b in zip(whole[client], rest[client], strict=True))


@given(TEXTS)
def test_no_text_is_both_trained_on_and_held_out_by_anybody(records):
    found = split(records).values()
    assert not {t for train, _ in found for t in train} & {t for _, held in found for t in held}


def test_the_share_held_out_is_met_on_average():
    found = split([(0, text) for text in range(2000)], fraction=0.25)["c0"]
    assert len(found[1]) == pytest.approx(500, abs=60)


def test_a_private_run_trains_on_the_same_others_when_one_record_leaves(tmp_path):
    table = private_table(tmp_path, "example", evaluation={"metrics": [], "resamples": 20, "holdout": 0.3})
    whole = prepare(read_run(table)).division.train
    path = tmp_path / "data.jsonl"
    lines = path.read_text().splitlines()
    for gone in range(0, len(lines), 5):
        (tmp_path / "less.jsonl").write_text("\n".join(lines[:gone] + lines[gone + 1 :]) + "\n")
        less = prepare(
            read_run(table | {"data": table["data"] | {"path": str(tmp_path / "less.jsonl")}})
        ).division.train
        owner = json.loads(lines[gone])["owner"]
        assert all(less[client] == whole[client] for client in whole if client != owner)
        assert len(whole[owner]) - len(less[owner]) in (0, 1) and all(one in whole[owner] for one in less[owner])
