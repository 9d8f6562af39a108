"""The server's half of the rounds without a wire: redelivery, order, deadlines, and reports that are refused."""

import threading
from dataclasses import replace

import pytest
import torch

from fedloom.base import config
from fedloom.base.errors import DataError, TrainingError
from fedloom.base.mean import Mean
from fedloom.contracts.messages import Report
from fedloom.federated.rounds import begin, step
from fedloom.network.enrolment import Enrolment
from fedloom.network.hub import Hub
from fedloom.network.jobs import JobFrame, local_of, report_to
from fedloom.network.open_round import Deadline
from fedloom.network.remote import Remote
from fedloom.runs.apart import prepare_server
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import Deployment
from support.small_runs import small_run

CLIENTS = ("client0", "client1", "client2", "client3")
NODES = {"north": ["client0", "client1"], "south": ["client2"], "west": ["client3"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


class Trial:
    """A hub with a round's carrier on one side and what nodes would do on the other."""

    def __init__(self, home, tmp_path, settings=None, **changes):
        run = small_run(home, engine="sequential", evaluation={"holdout_by": "text"}, **changes)
        self.simulated = prepare(run)
        self.ready = prepare_server(run, CLIENTS)
        self.plan = self.ready.stages[0].plan
        nodes = {name: {"clients": own} for name, own in NODES.items()}
        nodes["north"]["max_weight"] = 50.0
        self.enrolment = config.build(Enrolment, {"nodes": nodes})
        self.hub = Hub("ab", self.enrolment, tmp_path / "incoming", settings or Deployment())
        self.carrier = Remote(self.hub).start(self.ready.stages[0].work)
        self.state = begin(self.plan, self.ready.layout.row({"": self.ready.shared}))
        self.sent = {name: [] for name in NODES}

    def join(self, *names):
        for name in names or NODES:
            self.sent[name] = []
            self.hub.joined(name, {}, lambda frame, to=self.sent[name]: to.append(frame.header))

    def round(self):
        """Start a round in a thread, and return what ends it."""
        done = {}

        def work():
            try:
                done["state"], done["record"] = step(self.plan, self.state, self.carrier)
            except TrainingError as error:
                done["error"] = error

        thread = threading.Thread(target=work)
        thread.start()

        def end():
            thread.join(timeout=20)
            assert not thread.is_alive()
            return done

        while self.hub.status()["round"] != self.state.round and thread.is_alive():
            pass
        return end

    def jobs(self, *names):
        return [JobFrame.from_header(h) for name in names or NODES for h in self.sent[name] if h["kind"] == "job"]

    def report(self, job):
        """What the client's node would answer."""
        work = self.simulated.stages[0].work
        node = self.enrolment.of_client(job.client)[0]
        body = b"".join(self.hub.body(node, job.body.digest))
        local = local_of(body, self.plan.layout.size, {})
        local = replace(local, memory=self.plan.rule.init_memory(local.anchor))
        from fedloom.contracts.messages import Job

        carrier = self.simulated.run.engine.start(work)
        return next(iter(carrier([Job(job.client, job.round, job.lr, local)])))

    def deliver(self, job, report=None, node=None, **header):
        node = node or self.enrolment.of_client(job.client)[0]
        report = report or self.report(job)
        told = report_to(report, job.id) | header
        verdict = self.hub.offered(node, told)
        if verdict.kind != "wanted":
            return verdict
        return self.hub.arrived(node, job.id, verdict.start, report.packet.numpy().tobytes()[verdict.start :])


def in_one_place(trial):
    carrier = trial.simulated.run.engine.start(trial.simulated.stages[0].work)
    return step(trial.plan, trial.state, carrier)


def test_reports_in_reverse_order_give_the_same_bytes(home, tmp_path):
    trial = Trial(home, tmp_path)
    trial.join()
    end = trial.round()
    for job in reversed(trial.jobs()):
        assert trial.deliver(job).kind == "taken"
    done = end()
    state, record = in_one_place(trial)
    assert torch.equal(done["state"].params_P, state.params_P) and done["record"] == record
    assert not list((tmp_path / "incoming").glob("*"))


def test_a_node_that_comes_late_or_again_gets_what_is_still_open(home, tmp_path):
    trial = Trial(home, tmp_path)
    trial.join("south")
    end = trial.round()
    assert [job.client for job in trial.jobs()] == ["client2"]
    trial.join("north")
    first, second = trial.jobs("north")
    trial.deliver(first)
    older = trial.sent["north"]
    trial.join("north")
    assert older[-1] == {"kind": "replaced"} and [job.client for job in trial.jobs("north")] == [second.client]
    trial.join("west")
    for job in (*trial.jobs("north"), *trial.jobs("south"), *trial.jobs("west")):
        trial.deliver(job)
    assert len(end()["record"].clients) == 4


def test_the_same_report_again_is_taken_and_counted_once(home, tmp_path):
    trial = Trial(home, tmp_path)
    trial.join()
    end = trial.round()
    jobs = trial.jobs()
    report = trial.report(jobs[0])
    assert [trial.deliver(jobs[0], report).kind for _ in range(3)] == ["taken"] * 3
    for job in jobs[1:]:
        trial.deliver(job)
    assert len(end()["record"].clients) == 4
    assert trial.deliver(jobs[0], report).kind == "taken"


LIES = {
    "another layout": ({"layout": [["delta", "", [3]]]}, "another layout"),
    "a short packet": ({"size": 10}, "found a packet of 10 bytes"),
    "a huge packet": ({"size": 10**12}, "found a packet of 1000000000000 bytes"),
    "a negative weight": ({"weight": (-1.0).hex()}, "found a weight of -1"),
    "a weight of zero": ({"weight": (0.0).hex()}, "found a weight of 0"),
    "a weight beyond enrolment": ({"weight": (51.0).hex()}, "allowed is above 0 and at most 50"),
    "a weight that is no number": ({"weight": "nan"}, "allowed is a finite number"),
    "no examples": ({"n_examples": 0}, "found no examples"),
    "another's name": ({"client": "client2"}, "a report of client 'client2' for a job of 'client0'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_report_that_lies_is_refused_and_the_others_are_as_without_it(home, tmp_path, lie):
    changes, text = LIES[lie]
    trial = Trial(home, tmp_path, min_clients=2)
    trial.join()
    end = trial.round()
    first, *others = trial.jobs()
    verdict = trial.deliver(first, **changes)
    assert verdict.kind == "refused" and text in verdict.reason
    assert trial.deliver(first).kind == "refused"
    for job in others:
        trial.deliver(job)
    done = end()
    assert list(done["record"].refused) == ["client0"] and done["record"].absent == ("client0",)
    carrier = trial.simulated.run.engine.start(trial.simulated.stages[0].work)
    state, _ = step(trial.plan, trial.state, lambda jobs: carrier(job for job in jobs if job.client != "client0"))
    assert torch.equal(done["state"].params_P, state.params_P)


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "NaN or infinity"), (1e30, "deployment.max_norm")])
def test_a_row_that_is_no_row_is_refused_when_it_is_whole(home, tmp_path, value, text):
    trial = Trial(home, tmp_path, Deployment(max_norm=100.0), min_clients=1)
    trial.join()
    end = trial.round()
    first, *others = trial.jobs()
    report = trial.report(first)
    row_P = torch.zeros(report.layout.size)
    row_P[0] = value
    verdict = trial.deliver(first, replace(report, packet=row_P.view(torch.uint8)))
    assert verdict.kind == "refused" and text in verdict.reason
    for job in others:
        trial.deliver(job)
    assert list(end()["record"].refused) == ["client0"]


def test_a_node_speaks_for_its_own_clients_alone(home, tmp_path):
    trial = Trial(home, tmp_path)
    trial.join()
    end = trial.round()
    jobs = trial.jobs()
    verdict = trial.deliver(jobs[0], node="south")
    assert verdict.kind == "refused" and "is not of this node" in verdict.reason
    for job in jobs:
        assert trial.deliver(job).kind == "taken"
    assert not end()["record"].refused


def test_bytes_that_were_not_offered_or_do_not_fit_are_not_taken(home, tmp_path):
    trial = Trial(home, tmp_path)
    trial.join()
    end = trial.round()
    job, *others = trial.jobs()
    assert trial.hub.arrived("north", job.id, 0, b"x").kind == "refused"
    report = trial.report(job)
    packet = report.packet.numpy().tobytes()
    assert trial.hub.offered("north", report_to(report, job.id)).kind == "wanted"
    assert trial.hub.arrived("north", job.id, 5, packet[5:]).start == 0
    assert trial.hub.arrived("north", job.id, 0, packet[:7]).start == 7
    assert trial.hub.offered("north", report_to(report, job.id)).start == 7
    wrong = trial.hub.arrived("north", job.id, 7, bytes(len(packet) - 7))
    assert (wrong.kind, wrong.start) == ("wanted", 0)
    for one in (job, *others):
        assert trial.deliver(one).kind == "taken"
    end()


def test_a_job_of_an_old_round_is_closed(home, tmp_path):
    trial = Trial(home, tmp_path)
    trial.join()
    end = trial.round()
    old = trial.jobs()
    for job in old:
        trial.deliver(job)
    trial.state = end()["state"]
    end = trial.round()
    assert trial.hub.offered("north", {"job": old[0].id}).kind == "closed"
    with pytest.raises(DataError, match="not of an open round"):
        trial.hub.body("north", old[0].body.digest)
    for job in trial.jobs()[-4:]:
        if job.round == 1:
            trial.deliver(job)
    for name in NODES:
        for job in trial.jobs(name):
            trial.deliver(job) if job.round == 1 else None
    assert end()["record"].round == 1


@pytest.fixture
def clock(monkeypatch):
    """Deadlines that pass when the test says so, on a busy machine too."""
    passed = threading.Event()
    monkeypatch.setattr(Deadline, "passed", property(lambda self: passed.is_set()))
    monkeypatch.setattr(Deadline, "left_s", property(lambda self: 0.02))
    return passed


def test_a_straggler_is_absent_at_the_deadline_and_the_bytes_are_those_of_a_simulated_absence(home, tmp_path, clock):
    trial = Trial(home, tmp_path, Deployment(deadline_s=1.0), min_clients=2)
    trial.join()
    end = trial.round()
    late, *others = trial.jobs()
    for job in others:
        trial.deliver(job)
    clock.set()
    done = end()
    assert done["record"].absent == ("client0",)
    assert trial.deliver(late, trial_report(trial, late)).kind == "closed"
    carrier = trial.simulated.run.engine.start(trial.simulated.stages[0].work)
    state, _ = step(trial.plan, trial.state, lambda jobs: carrier(job for job in jobs if job.client != "client0"))
    assert torch.equal(done["state"].params_P, state.params_P)


def trial_report(trial, job):
    empty = torch.zeros(trial.plan.layout.size)
    return Report(job.client, empty.view(torch.uint8), trial.plan.layout, 1.0, 1, 1, Mean(1.0, 1.0), {}, 1)


def test_too_few_by_the_deadline_are_waited_for_three_times_and_then_named(home, tmp_path, clock):
    trial = Trial(home, tmp_path, Deployment(deadline_s=0.2), min_clients=3)
    trial.join("north", "south")
    end = trial.round()
    trial.deliver(trial.jobs("south")[0])
    north = trial.jobs("north")[0]
    trial.hub.declined("north", {"job": north.id, "reason": "the policy does not allow it"})
    clock.set()
    told = str(end()["error"])
    assert "1 of 4 clients reported by the deadline, 4 times" in told
    assert "client0 (the policy does not allow it)" in told and "node 'west' has never been here" in told
    assert sum(job.client == "client1" for job in trial.jobs("north")) >= 4


def test_a_round_that_asks_more_than_it_needs_closes_with_the_first(home, tmp_path):
    trial = Trial(home, tmp_path, clients_per_round=2, deployment={"over_select": 2.0})
    assert (trial.plan.clients_per_round, trial.plan.enough, trial.plan.min_clients) == (4, 2, 2)
    trial.join()
    end = trial.round()
    jobs = {job.client: job for job in trial.jobs()}
    for client in ("client3", "client1"):
        assert trial.deliver(jobs[client]).kind == "taken"
    done = end()
    assert [one.client for one in done["record"].clients] == ["client1", "client3"]
    assert trial.hub.offered("south", {"job": jobs["client2"].id}).kind == "closed"


def test_status_says_whom_the_round_waits_for(home, tmp_path):
    trial = Trial(home, tmp_path)
    trial.join("north", "south")
    end = trial.round()
    first, second, third = trial.jobs()
    trial.deliver(first)
    report = trial.report(second)
    trial.hub.offered("north", report_to(report, second.id))
    trial.hub.arrived("north", second.id, 0, report.packet.numpy().tobytes()[:5])
    trial.hub.declined("south", {"job": third.id, "reason": "hours"})
    told = trial.hub.status()
    assert {name: one["here"] for name, one in told["nodes"].items()} == {"north": True, "south": True, "west": False}
    assert [one["phase"] for one in told["clients"].values()] == ["reported", "sending", "declined", "working"]
    assert told["clients"]["client1"]["bytes"] == 5 and told["nodes"]["west"]["seen_s_ago"] is None
    trial.join("west")
    for job in (second, third, *trial.jobs("west")):
        trial.deliver(job)
    end()
