"""Simulated clients whose data are made when they are asked for: the same rounds, and no more of them in memory."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from benchmarks._common import RESULTS
from benchmarks.scale.__main__ import DOCS
from benchmarks.scale._cases import TOGETHER, Case, Measured, measured, work_of
from benchmarks.scale._plan import costs_of, markdown

from fedloom.base.plugin import lookup
from fedloom.base.tree import flatten
from fedloom.contracts.federated import Engine
from fedloom.federated.rounds import begin, step

CASE = Case(250, 220, 2)


def trained(work):
    carrier = lookup(Engine, "cohort")(width=TOGETHER).start(work)
    state = begin(work.plan, flatten(work.model.trainable))
    for _ in range(work.plan.rounds):
        state, _ = step(work.plan, state, carrier)
    return state.params_P


@pytest.fixture(scope="module")
def made():
    return work_of(CASE)


@pytest.fixture(scope="module")
def params(made):
    return trained(made)


def test_clients_made_when_asked_for_train_as_those_in_memory(made, params):
    assert torch.equal(params, trained(replace(made, shards=dict(made.shards), keep_ready=0)))


def test_a_client_is_a_function_of_its_name(made):
    one, other = made.shards["c0000007"].items, work_of(CASE).shards["c0000007"].items
    assert all(torch.equal(a.inputs, b.inputs) and a.label == b.label for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0].inputs, made.shards["c0000008"].items[0].inputs)


def test_what_is_kept_of_clients_is_bounded(made, params):
    assert len(made._ready) == TOGETHER < CASE.asked


def test_a_case_counts_the_lines_of_its_ledger():
    found = measured(Case(30, 20, 2))
    assert found.client_rounds == 40 and found.upload_bytes == 4 * 442
    assert 40 * 150 < found.ledger_bytes < 40 * 400 and 0 < found.data_s < found.carried_s < found.cpu_s


def test_constants_are_those_that_cases_were_made_of():
    def case(clients, asked, rounds, engine="cohort"):
        n = asked * rounds
        peak = 1e8 + 70 * clients + 300 * asked
        times = {"wall_s": 2e-3 * n, "cpu_s": 1e-3 * n, "data_s": 2e-4 * n, "carried_s": 9e-4 * n}
        sizes = {"held_bytes": 0, "peak_bytes": peak, "ledger_bytes": 200 * n, "schedule_bytes": 12 * n}
        return Measured(clients, asked, rounds, engine, **times, **sizes, upload_bytes=8)

    cases = [case(10, 10, 20), case(1000, 10, 20), case(1000, 1000, 2), case(10, 10, 2, "ray")]
    found = {name: round(value, 6) for name, value in asdict(costs_of(cases)).items()}
    assert found == {
        "known_bytes": 70,
        "asked_bytes": 300,
        "base_bytes": 1e8,
        "data_ms": 0.2,
        "train_ms": 0.7,
        "server_ms": 0.1,
        "ledger_bytes": 200,
        "schedule_bytes": 12,
        "upload_bytes": 8,
        "ray_server_ms": 1,
        "ray_client_ms": 2,
    }


def test_the_page_quotes_what_was_measured():
    done = json.loads((RESULTS / "scale" / "scale.json").read_text())
    assert markdown(done) in DOCS.read_text()
    assert (RESULTS / "scale" / "scale.md").read_text() == markdown(done)


def test_the_server_holds_as_much_for_a_hundred_thousand_clients_as_for_a_thousand():
    cases = [Measured(**case) for case in json.loads((RESULTS / "scale" / "scale.json").read_text())["cases"]]
    part = {case.clients: case.peak_bytes for case in cases if case.asked == 1000 and case.rounds == 20}
    assert part[100_000] < 1.05 * part[1_000]
