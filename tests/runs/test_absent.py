"""Rounds in which clients that were asked do not report: what counts, what is spent, what a resumed run does."""

import json

import pytest
import torch

from fedloom import api
from fedloom.base.errors import ConfigError, TrainingError
from fedloom.federated.rounds import begin, step
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import RoundDone, execute, run_files
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support import numbers
from support.resuming import logs

TABLE = numbers.TABLE | {"min_clients": 2}
EXAMPLES = {"name": "gaussian", "noise_multiplier": 0.3, "epsilon": 0.0, "delta": 0.01}


def prepared(**changes):
    return prepare(read_run(TABLE | changes)).stages[0]


def without(carrier, *names, late=False):
    """The carrier without some clients' reports; late ones train, and nobody takes what they send."""

    def carry(jobs):
        if late:
            return (report for report in carrier(jobs) if report.client not in names)
        return carrier(job for job in jobs if job.client not in names)

    return carry


def rounds_of(stage, carrier, n_rounds=2):
    state = begin(stage.plan, torch.zeros(4))
    records = []
    for _ in range(n_rounds):
        state, record = step(stage.plan, state, carrier)
        records.append(record)
    return state, records


@pytest.mark.parametrize("changes", [{}, {"rule": "scaffold"}, {"codec": {"name": "top_k", "share": 0.5}}])
def test_who_does_not_report_counts_as_not_sampled(changes):
    """The row of a round is that of a run whose other clients are all there are, up to the share that took part."""
    stage = prepared(**changes)
    carrier = read_run(TABLE | changes).engine.start(stage.work)
    state, records = rounds_of(stage, without(carrier, "c1"), 1)
    weights = {"c0": 11, "c2": 13, "c3": 13}
    assert {one.client: one.weight for one in records[0].clients} == weights and records[0].absent == ("c1",)
    rows = {r.client: stage.plan.codec.decode(r.packet, r.layout.size) for r in carrier(jobs(stage, weights))}
    mean_P = sum(weight * rows[client] for client, weight in weights.items()) / sum(weights.values())
    torch.testing.assert_close(state.params_P, mean_P[:4], rtol=1e-6, atol=1e-7)
    if "rule" in changes:
        control_P = sum(rows.values())[4:] / 3 * 3 / 4
        torch.testing.assert_close(state.shared["control"][""], control_P, rtol=1e-6, atol=1e-7)


def jobs(stage, clients):
    """The first jobs of these clients."""
    found = []

    def listening(asked):
        found.extend(job for job in asked if job.client in clients)
        return iter(())

    with pytest.raises(TrainingError, match="0 of 4 clients reported"):
        step(stage.plan, begin(stage.plan, torch.zeros(4)), listening)
    return found


def test_a_late_report_is_that_of_nobody():
    stage = prepared(rule="scaffold")
    carrier = read_run(TABLE).engine.start(stage.work)
    absent, _ = rounds_of(stage, without(carrier, "c1"))
    late, _ = rounds_of(stage, without(carrier, "c1", late=True))
    assert torch.equal(absent.params_P, late.params_P) and absent.memory.keys() == late.memory.keys()


@pytest.mark.parametrize(("least", "missing"), [(0, ["c1"]), (3, ["c1", "c3"])])
def test_too_few_reports_are_refused_with_the_names_of_the_missing(least, missing):
    stage = prepared(min_clients=least)
    carrier = without(read_run(TABLE).engine.start(stage.work), *missing)
    with pytest.raises(TrainingError, match=rf"round 0: \d of 4 clients reported.*missing: {', '.join(missing)}\.$"):
        rounds_of(stage, carrier)


def test_reports_twice_out_of_order_or_of_nobody_asked_are_refused():
    stage = prepared()
    carrier = read_run(TABLE).engine.start(stage.work)
    for change in (lambda found: found[::-1], lambda found: [*found, found[-1]]):
        with pytest.raises(TrainingError, match="reports for 4 jobs, or out of order"):
            rounds_of(stage, lambda asked, change=change: iter(change(list(carrier(asked)))))


def test_an_absent_client_has_spent_what_it_may_have_spent():
    stage = prepared(privacy=EXAMPLES, weighting="uniform")
    carrier = without(read_run(TABLE).engine.start(stage.work), "c1")
    state, _ = rounds_of(stage, carrier)
    assert state.spent == {"c0": 6, "c1": 6, "c2": 6, "c3": 6}


@pytest.mark.parametrize("unit", ["client", "client_local"])
def test_privacy_of_clients_and_partial_rounds_exclude_each_other(unit):
    with pytest.raises(ConfigError, match=f"min_clients: found 2 with privacy of unit '{unit}'"):
        read_run(TABLE | {"privacy": EXAMPLES | {"unit": unit}, "weighting": "uniform"})


def test_a_minimum_above_the_sampled_clients_is_refused():
    with pytest.raises(ConfigError, match="min_clients: found 3, allowed is at most clients_per_round = 2"):
        read_run(TABLE | {"clients_per_round": 2, "min_clients": 3})


def files(folder):
    state = sorted((folder / "checkpoints").iterdir())[-1]
    return {path.name: path.read_bytes() for path in [*state.glob("*.safetensors"), *folder.glob("adapter/*")]}


def run_with(run, folder, absent):
    directory = RunDirectory.create(folder, run_files(run, ""))
    with directory.held():
        yield from execute(run, directory, absent=absent)


def test_the_ledger_names_who_did_not_report(tmp_path):
    list(run_with(read_run(TABLE), tmp_path / "run", {1: ["c2"]}))
    missing = [line for line in logs(tmp_path / "run")["ledger.jsonl"] if line["what"] == "nothing: it did not report"]
    assert [(line["round"], line["client"], line["bytes"]) for line in missing] == [(1, "c2", 0)]


def test_a_round_made_again_is_made_with_the_same_clients(tmp_path, monkeypatch):
    """Stopped after it was written who came, before the round was saved; who goes on with it is not told who came."""
    run = read_run(TABLE)
    list(run_with(run, tmp_path / "unbroken", {1: ["c2"], 3: ["c0"]}))
    step_of = type(run.server_opt).step
    events = run_with(run, tmp_path / "killed", {1: ["c2"], 3: ["c0"]})

    def dies(self, params, delta, state, *, round):
        if round == 3:
            raise KeyboardInterrupt
        return step_of(self, params, delta, state, round=round)

    monkeypatch.setattr(type(run.server_opt), "step", dies)
    with pytest.raises(KeyboardInterrupt):
        list(events)
    monkeypatch.undo()
    assert json.loads((tmp_path / "killed" / "attendance.json").read_text())["clients"] == ["c1", "c2", "c3"]
    done = [event for event in api.resume(tmp_path / "killed")[1] if isinstance(event, RoundDone)]
    assert [event.record.absent for event in done] == [("c0",)]
    assert files(tmp_path / "killed") == files(tmp_path / "unbroken") != {}
    assert logs(tmp_path / "killed") == logs(tmp_path / "unbroken")
