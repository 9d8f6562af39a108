"""A client prepares its half of a run from its own data alone, and sends what it sends in a run made in one place."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from fedloom.base.errors import ConfigError
from fedloom.federated.rounds import begin, step
from fedloom.runs.apart import prepare_client
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support import alone
from support.small_runs import small_run, small_table

CLIENTS = ("client0", "client1", "client2")
PRIVATE = {"name": "gaussian", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 0.1}
BY_TEXT = {"holdout_by": "text", "max_new_tokens": 3, "resamples": 20}
CASES = {
    "epochs": {"local": {"epochs": 2.0, "batch": 2}, "clients_per_round": 2, "weighting": "tokens"},
    "private parameters and moments": {"share": "lora_A", "local": {"steps": 2, "optimiser_state": "kept"}},
    "ranks by place": {"ranks": [2, 1], "aggregator": "lora_svd"},
    "controls": {"rule": "scaffold", "codec": "int8", "clients_per_round": 2},
    "protected examples": {"privacy": PRIVATE, "weighting": "uniform", "clients_per_round": 2},
    "protected clients": {"privacy": PRIVATE | {"unit": "client"}, "weighting": "uniform"},
    "rows protected at clients": {"privacy": PRIVATE | {"unit": "client_local"}, "weighting": "uniform"},
    "prepared examples": {"prepare": ["unchanged"]},
}


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """A folder with the data of all, one for each client with its own, and a process for each."""
    whole = tmp_path_factory.mktemp("whole")
    small_table(whole)
    lines = [line for line in (whole / "data.jsonl").read_text().splitlines(True) if '"client3"' not in line]
    (whole / "data.jsonl").write_text("".join(lines))
    folders = {client: tmp_path_factory.mktemp(client) for client in CLIENTS}
    files = {client: folder / "own.jsonl" for client, folder in folders.items()}
    for client, file in files.items():
        file.write_text("".join(line for line in lines if f'"{client}"' in line))
    context = multiprocessing.get_context("spawn")
    pools = {client: ProcessPoolExecutor(1, mp_context=context) for client in CLIENTS}
    for client, pool in pools.items():
        others = [whole / "data.jsonl", *(file for other, file in files.items() if other != client)]
        pool.submit(alone.forbid, others).result()
    yield whole, files, pools
    for pool in pools.values():
        pool.shutdown()


def test_a_client_cannot_read_what_others_own(homes):
    whole, files, pools = homes
    may = {client: pools["client0"].submit(alone.may_read, file).result() for client, file in files.items()}
    assert may == {"client0": True, "client1": False, "client2": False}
    assert not pools["client0"].submit(alone.may_read, whole / "data.jsonl").result()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_rounds_of_clients_that_prepared_themselves_are_those_of_one_place(homes, case):
    whole, files, pools = homes
    table = small_table(whole, engine="sequential", evaluation=BY_TEXT, **CASES[case])
    ready = prepare(read_run(table))
    plan, carrier = ready.stages[0].plan, ready.run.engine.start(ready.stages[0].work)

    def apart(jobs):
        for job in jobs:
            own = table | {"data": table["data"] | {"path": str(files[job.client])}}
            yield pools[job.client].submit(alone.report, case, own, job.client, CLIENTS, job).result()

    one = other = begin(plan, ready.layout.row({"": ready.shared}))
    for _ in range(2):
        (one, told), (other, told_apart) = step(plan, one, carrier), step(plan, other, apart)
        assert told == told_apart and len(told.clients) > 0
    assert torch.equal(one.params_P, other.params_P) and one.spent == other.spent
    assert one.memory.keys() == other.memory.keys()


@pytest.mark.parametrize(
    ("changes", "clients", "refusal"),
    [
        ({"evaluation": {}}, CLIENTS, r"evaluation.holdout_by: found 'count'.*set 'text', or holdout = 0"),
        ({"protocol": "clustered"}, CLIENTS, r"protocol: found 'clustered', which groups clients by what all of them"),
        ({}, CLIENTS[1:], r"clients: found \['client1', 'client2'\] for 'client0'; list every client once"),
        ({}, (*CLIENTS, "client0"), r"clients: found .* for 'client0'; list every client once"),
    ],
)
def test_what_a_client_cannot_know_is_refused(tmp_path, changes, clients, refusal):
    run = small_run(tmp_path, **({"evaluation": BY_TEXT} | changes))
    with pytest.raises(ConfigError, match=refusal):
        prepare_client(run, "client0", clients)
