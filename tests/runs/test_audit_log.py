"""The schedule of a run, known before its first round, and the audit log: what the server sees of every row."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from fedloom import api
from fedloom.base.errors import ConfigError, RunError
from fedloom.base.plugin import lookup
from fedloom.contracts.aggregation import Aggregate, Aggregator
from fedloom.federated.rounds import begin, sample_clients, step
from fedloom.runs import audit_log
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import Note, RoundDone, execute, run_files
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support import numbers
from support.resuming import in_a_process, kill_and_resume, logs, run_to_the_end

TABLE = numbers.TABLE | {"clients_per_round": 3, "audit_log": True}
LOCAL_NOISE = {"name": "gaussian", "noise_multiplier": 0.5, "epsilon": 0.0, "delta": 0.01}
PROTECTED = {"weighting": "uniform", "privacy": LOCAL_NOISE}


def lines(folder, name="audit.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def ran(folder, absent=None, **changes):
    run = read_run(TABLE | changes)
    directory = RunDirectory.create(folder, run_files(run, ""))
    with directory.held():
        list(execute(run, directory, absent=absent or {}))
    return run


# ------------------------------------------------------------------------------------------------------------ schedule


@pytest.mark.parametrize("protocol", ["federated", "local_only"])
def test_the_schedule_is_who_is_sampled_in_every_round_of_every_stage(tmp_path, protocol):
    run = ran(tmp_path / "run", protocol=protocol, audit_log=False)
    stages = prepare(run).stages
    assert lines(tmp_path / "run", "schedule.jsonl") == [
        {"leg": s.name, "of": len(s.plan.clients), "round": round, "clients": sample_clients(s.plan, round)}
        for s in stages
        for round in range(run.rounds)
    ]


def test_the_schedule_is_there_before_anything_is_trained_or_measured_and_how_many_are_drawn_is_told(tmp_path):
    events = api.start(read_run(TABLE), tmp_path / "run")
    notes = [next(events), next(events)]
    events.close()
    assert (tmp_path / "run" / "schedule.jsonl").is_file() and not (tmp_path / "run" / "metrics.jsonl").read_text()
    assert Note("3 of 4 clients take part in a round (schedule.jsonl)") in notes


def test_who_took_part_is_who_the_schedule_names(tmp_path):
    ran(tmp_path / "run")
    planned = [line["clients"] for line in lines(tmp_path / "run", "schedule.jsonl")]
    assert [line["asked"] for line in lines(tmp_path / "run")] == planned


def test_where_clients_are_protected_the_schedule_names_nobody_and_says_so(tmp_path):
    ran(tmp_path / "run", audit_log=False, weighting="uniform", privacy=LOCAL_NOISE | {"unit": "client"})
    (line,) = lines(tmp_path / "run", "schedule.jsonl")
    assert line["expected"] == pytest.approx(3.0) and line["clients"].startswith("drawn in secret")


def stopped(folder):
    events = api.start(read_run(TABLE), folder)
    for _ in range(4):
        next(events)
    events.close()


@pytest.mark.parametrize("text", ["", '{"leg": "", "of": 4, "round": 0, "clients": ["c0"]}\n'])
def test_a_run_that_goes_on_with_another_schedule_is_refused(tmp_path, text):
    stopped(tmp_path / "run")
    (tmp_path / "run" / "schedule.jsonl").write_text(text)
    with pytest.raises(RunError, match=r"schedule\.jsonl: is not who this run asks, round by round; restore it"):
        list(api.resume(tmp_path / "run")[1])


# ----------------------------------------------------------------------------------------------------------- audit log


def rows_of(run, absent):
    """The weighted part of every row as it is decoded, and its loss, by round and client: the rounds made again."""
    stage = prepare(run).stages[0]
    found, state = [], begin(stage.plan, stage.plan.layout.row({"": prepare(run).shared}))
    carrier = run.engine.resolved(stage.work, n_clients=3).start(stage.work)

    def watched(jobs):
        for report in carrier(job for job in jobs if job.client not in absent.get(job.round, ())):
            row = stage.plan.codec.decode(report.packet, report.layout.size).numpy()
            width = sum(np.prod(shape, dtype=int) for slot, _, shape in report.layout.entries if slot == "delta")
            found[-1][report.client] = row[:width].astype(np.float64), report.loss, report.weight
            yield report

    for _ in range(run.rounds):
        found.append({})
        state, _ = step(stage.plan, state, watched)
    return found


@pytest.mark.parametrize(
    "changes",
    [{}, {"rule": "scaffold", "codec": "int8"}, {"codec": {"name": "top_k", "share": 0.5}}, PROTECTED],
    ids=["plain", "scaffold_int8", "top_k", "protected_examples"],
)
def test_norms_cosines_weights_and_losses_are_those_of_the_rows_by_hand(tmp_path, changes):
    absent = {1: ["c2", "c3"]}
    run = ran(tmp_path / "run", absent, min_clients=1, **changes)
    found, wanted = lines(tmp_path / "run"), rows_of(run, absent)
    assert len(found) == len(wanted) == run.rounds
    for line, rows in zip(found, wanted, strict=True):
        assert [one["client"] for one in line["clients"]] == list(rows)
        norms = [np.sqrt((row**2).sum()) for row, _, _ in rows.values()]
        assert [one["norm"] for one in line["clients"]] == pytest.approx(norms, rel=1e-9)
        unit_NP = np.stack([row for row, _, _ in rows.values()]) / np.array(norms)[:, None]
        np.testing.assert_allclose(line["cosines"], unit_NP @ unit_NP.T, atol=1e-6)
        assert [one["weight"] for one in line["clients"]] == [weight for _, _, weight in rows.values()]
        losses = [None if "privacy" in changes else loss.value for _, loss, _ in rows.values()]
        assert [one["loss"] for one in line["clients"]] == losses


def test_who_was_asked_and_did_not_come_is_absent(tmp_path):
    ran(tmp_path / "run", {1: ["c0", "c1", "c2"]}, min_clients=1)
    line = lines(tmp_path / "run")[1]
    asked, came = line["asked"], [one["client"] for one in line["clients"]]
    assert (len(asked), came, line["absent"]) == (3, ["c3"], [client for client in asked if client != "c3"])


def test_a_line_says_what_a_round_came_to(tmp_path):
    ran(tmp_path / "run")
    line = lines(tmp_path / "run")[0]
    assert (line["leg"], line["round"], line["decision"], line["reason"]) == ("", 0, "merged", "")
    assert list(line["measures"]) == ["drift"] and line["measures"]["drift"] > 0
    assert [(one["decision"], one["reason"], one["scores"]) for one in line["clients"]] == 3 * [("merged", "", {})]


def test_what_stays_private_has_no_norm(tmp_path):
    ran(tmp_path / "run", protocol="local_only", clients_per_round=0)
    found = lines(tmp_path / "run")
    assert [line["leg"] for line in found] == [line["leg"] for line in lines(tmp_path / "run", "schedule.jsonl")]
    assert {one["norm"] for line in found for one in line["clients"]} == {None}
    assert not any(line["cosines"] for line in found)


class Suspecting(Aggregator):
    """Merges the first rows alone, and says what it thinks of each."""

    name = "suspecting"

    def __call__(self, rows_NP, weight_N, frame):
        return rows_NP[:-1].mean(0)

    def aggregate(self, rows_NP, weight_N, frame):
        scores = {client: {"probe": float(at)} for at, client in enumerate(frame.clients)}
        left_out = {frame.clients[-1]: "its probe is the highest"}
        return Aggregate(self(rows_NP, weight_N, frame), {"most": 2.0}, scores=scores, left_out=left_out)


def test_what_an_aggregator_says_of_single_rows_is_told_client_by_client(tmp_path):
    run = replace(read_run(TABLE), aggregator=Suspecting())
    directory = RunDirectory.create(tmp_path / "run", run_files(read_run(TABLE), ""))
    with directory.held():
        list(execute(run, directory))
    line = lines(tmp_path / "run")[0]
    assert [one["scores"] for one in line["clients"]] == [{"probe": 0.0}, {"probe": 1.0}, {"probe": 2.0}]
    assert [one["decision"] for one in line["clients"]] == ["merged", "merged", "left out"]
    assert (line["clients"][-1]["reason"], line["measures"]) == ("its probe is the highest", {"most": 2.0})


# ---------------------------------------------------------------------------------------------- stops, memory, refusals


@pytest.mark.slow
def test_killed_and_gone_on_with_its_bytes_are_those_of_an_unbroken_run(tmp_path):
    run = read_run(TABLE | {"rule": "scaffold", "codec": "int8", "rounds": 8, "checkpoint_every": 3})
    start_s = time.monotonic()
    in_a_process(run_to_the_end, run, tmp_path / "unbroken").join()
    took_s = time.monotonic() - start_s
    kill_and_resume(run, tmp_path / "killed", kills=4, longest_s=0.9 * took_s, seed=3)
    for name in ("audit.jsonl", "schedule.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes() != b""


def test_lines_written_after_the_last_checkpoint_are_cut_off(tmp_path):
    run = read_run(TABLE | {"checkpoint_every": 3})
    run_to_the_end(run, tmp_path / "unbroken")
    events = api.start(run, tmp_path / "stopped")
    while not isinstance(event := next(events), RoundDone) or event.record.round < 1:
        pass
    events.close()
    assert len(lines(tmp_path / "stopped")) == 2
    list(api.resume(tmp_path / "stopped")[1])
    assert (tmp_path / "stopped/audit.jsonl").read_bytes() == (tmp_path / "unbroken/audit.jsonl").read_bytes()


def test_a_run_whose_audit_log_is_gone_is_refused(tmp_path):
    stopped(tmp_path / "run")
    (tmp_path / "run" / "audit.jsonl").unlink()
    with pytest.raises(RunError, match=r"audit\.jsonl: missing; no checkpoint knows of less"):
        list(api.resume(tmp_path / "run")[1])


def test_unasked_no_row_is_kept_and_nothing_is_written(tmp_path, monkeypatch):
    def kept(*_, **__):
        raise AssertionError("a row was kept")

    monkeypatch.setattr(audit_log, "RowMatrix", kept)
    ran(tmp_path / "run", audit_log=False)
    assert not (tmp_path / "run" / "audit.jsonl").exists()
    with pytest.raises(AssertionError, match="a row was kept"):
        ran(tmp_path / "asked")


def test_rows_of_a_round_are_let_go_when_it_ends(tmp_path):
    run = read_run(TABLE)
    ready, directory = prepare(run), RunDirectory.create(tmp_path / "run", run_files(run, ""))
    stage = ready.stages[0]
    log = audit_log.AuditLog(directory, stage, asked=True)
    carrier = log.carrier(run.engine.resolved(stage.work, n_clients=3).start(stage.work))
    _, record = step(stage.plan, begin(stage.plan, stage.plan.layout.row({"": ready.shared})), carrier)
    assert len(log._rows.rows_NP) == 3
    log.close(record)
    assert log._rows is None


def test_asked_or_not_a_run_is_the_same(tmp_path):
    for name, asked in (("with", True), ("without", False)):
        ran(tmp_path / name, audit_log=asked)
    assert logs(tmp_path / "with") == logs(tmp_path / "without")
    adapters = [(tmp_path / name / "adapter" / "line.safetensors").read_bytes() for name in ("with", "without")]
    assert adapters[0] == adapters[1]


class Hidden(Aggregator):
    name = "hidden"
    sum_only = True

    def __call__(self, rows_NP, weight_N, frame):
        return lookup(Aggregator, "mean")()(rows_NP, weight_N, frame)


def test_a_server_that_sees_the_sum_alone_has_nothing_to_tell():
    with pytest.raises(ConfigError, match="audit_log: found true with aggregator 'hidden', of which the server sees"):
        replace(read_run(TABLE), aggregator=Hidden())


def test_rows_that_the_mechanism_covers_only_together_are_not_told_one_by_one():
    with pytest.raises(ConfigError, match="audit_log: found true with privacy of unit 'client', which"):
        read_run(TABLE | PROTECTED | {"privacy": LOCAL_NOISE | {"unit": "client"}})
