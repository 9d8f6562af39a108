"""A hostile server: what it tries, one case each, and that a node gives it nothing beyond its owner's policy.

The server is one that the policy names and whose certificate is good: it may lie in everything else. Each case says
what the owner reads of it. Nothing may have left the node but the reports that the honest part of a case asks for.
"""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from fedloom.base.errors import FedloomError
from fedloom.contracts.messages import Local
from fedloom.network import node_file
from fedloom.network.frames import PROTOCOL, Frame, number_to
from fedloom.network.jobs import JobFrame, body_of
from fedloom.network.keys import sign_bytes
from fedloom.network.manifest import Manifest
from fedloom.network.node import Node
from fedloom.network.open_round import Verdict
from fedloom.network.pieces import Piece
from support.federation import HELD, approved_federation

pytestmark = pytest.mark.timeout(120)
RUN = "ab" * 16
SECURE = {"aggregator": {"name": "secure_sum", "clip": 0.5}, "weighting": "uniform"}
NOISE = {
    "privacy": {"name": "gaussian", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 1e-3, "noise": "system"},
    "weighting": "uniform",
}


class Hostile:
    """What a server knows and says: the approved manifest, the bodies that it holds, and what it has heard."""

    def __init__(self, made):
        self.made = made
        self.manifest = Manifest.parsed(next((made.folder / "north" / "approved").glob("*.json")).read_text())
        self.size = self.manifest.layout.size
        self.bodies, self.offers, self.sent, self.said, self.summed = {}, [], [], [], []
        self.run, self.honest = RUN, []

    def welcome(self, hello, manifest=None, run=None, signed=None):
        text, run = (manifest or self.manifest).text, run or self.run
        digest = (manifest or self.manifest).digest
        said = signed or f"{hello['nonce']} {run} {digest}".encode()
        certificate = self.made.server_keys.certificate.read_text()
        signature = sign_bytes(self.made.server_keys.key, said).hex()
        return Frame({"kind": "welcome", "run": run, "certificate": certificate, "signature": signature}, text.encode())

    def body(self, tensors=None):
        data = tensors if isinstance(tensors, bytes) else body_of(Local({"": tensors}))
        self.bodies[Piece.of(data).digest] = data
        return Piece.of(data)

    def job(self, *, client="client0", round=0, params=None, lr=None, run=None, body=None, phase=""):
        params = self.start() if params is None else params
        lr = self.manifest.settings["local"]["lr"] if lr is None else lr
        return JobFrame(run or self.run, client, round, lr, body or self.body(params), phase)

    def start(self):
        """The parameters that the run starts from."""
        from fedloom.runs.prepared import load_model

        loaded = load_model(self.made.run())
        return loaded.layout.row({"": loaded.shared}).cpu()

    def changed(self, *path, value):
        """The manifest with one entry changed."""
        table = json.loads(self.manifest.text)
        at = table
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return table


def link_to(hostile, frames):
    """The node's link to a server that says `frames(hello)`."""

    class Link:
        where = "127.0.0.1:0"

        def __init__(self, *_, **__):
            pass

        def join(self, hello):
            yield from frames(hello)
            yield Frame({"kind": "end"})

        def fetch(self, digest, start):
            yield hostile.bodies[digest][start:]

        def offer(self, header):
            hostile.offers.append(dict(header))
            return Verdict("wanted" if header.get("size") else "taken")

        def send(self, head, packet, start):
            hostile.sent.append(bytes(packet))
            return Verdict("taken")

        def sum(self, header, body):
            hostile.summed.append((dict(header), body))
            return Verdict("taken")

        def exchange(self, job, message):
            raise AssertionError("no case trains a split model")

        def say(self, job, reason):
            hostile.said.append(reason)

        def close(self):
            pass

    return Link


# ------------------------------------------------------------------------- what it tries: (settings, policy, frames)


def jobs(*made):
    """Frames of a server that is honest up to its jobs, given as functions of the hostile one."""
    return lambda one, hello: [one.welcome(hello), *(Frame(make(one).header()) for make in made)]


def manifest_with(*path, value):
    def frames(one, hello):
        text = json.dumps(one.changed(*path, value=value))
        try:
            welcome = one.welcome(hello, manifest=Manifest.parsed(text))
        except FedloomError:  # no manifest at all: it is sent as it is
            welcome = replace(one.welcome(hello), body=text.encode())
        return [welcome, Frame(one.job().header())]

    return frames


def nan(one):
    params = one.start()
    params[3] = float("nan")
    return one.job(params=params)


def far(one):
    return one.job(params=one.start() + 100.0)


def other_rate(one):
    return one.job(lr=1e6)


def huge(one):
    return replace(one.job(), body=Piece("0" * 64, 10**12))


def more_tensors(one):
    data = save({"params/": one.start(), "code/run": one.start()})
    return one.job(body=one.body(data))


def pickled(one):
    return one.job(body=one.body(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."))


def wrong_length(one):
    return one.job(params=torch.zeros(one.size + 1))


def forged_id(one, hello):
    header = one.job().header() | {"lr": number_to(0.5)}
    return [one.welcome(hello), Frame(header)]


def second_look(one):
    return one.job(params=one.start() + 1e-3)


def partakers(one, *clients):
    return json.dumps({"clients": list(clients), "certificates": {}}).encode()


def sum_over(*clients):
    def frames(one, hello):
        job = one.job()
        head = {"kind": "sum", "job": job.id, "phase": "advertise", "attempt": 1}
        return [one.welcome(hello), Frame(job.header()), Frame(head, partakers(one, *clients))]

    return frames


def a_phase_out_of_turn(one, hello):
    job = one.job()
    head = {"kind": "sum", "job": job.id, "phase": "mask", "attempt": 1}
    return [one.welcome(hello), Frame(job.header()), Frame(head, b"{}")]


def a_sum_of_another_job(one, hello):
    head = {"kind": "sum", "job": "0" * 64, "phase": "advertise", "attempt": 1}
    return [one.welcome(hello), Frame(head, partakers(one, "client0", "client1", "client2", "client3"))]


TOLD = {"metrics": ["loss", "exact_match"]}
SPENT = {"privacy": {"unit": "example", "max_epsilon": 1.0}}
ATTACKS = {
    "a manifest that names a module to import": (
        {}, {}, manifest_with("settings", "plugins", value=["evil.py"]), "manifest.settings.plugins: is nothing"),
    "a manifest that names a file": (
        {}, {}, manifest_with("settings", "model", "path", value="/etc/passwd"), "manifest.settings.model.path"),
    "a manifest with a pattern": (
        {}, {}, manifest_with("settings", "train", value=".*"), "manifest.settings.train: is nothing"),
    "a manifest with a data source of its own": (
        {}, {}, manifest_with("settings", "data", value={"name": "file"}), "manifest.settings.data: is nothing"),
    "a manifest with a text to fill in": (
        {}, {}, manifest_with("settings", "task", "template", value={"name": "{{ 7 * 7 }}"}), "manifest.settings.task"),
    "one number of the approved manifest changed": (
        {}, {}, manifest_with("settings", "rounds", value=4), "waits for its owner's approval"),
    "a base that the policy does not name": (
        {}, {"bases": ["another"]}, jobs(Hostile.job), "the policy does not allow it: bases"),
    "a rule that the policy does not name": (
        {}, {"rules": ["scaffold"]}, jobs(Hostile.job), "the policy does not allow it: rules"),
    "more rounds than the policy allows": (
        {}, {"max_rounds": 2}, jobs(Hostile.job), "max_rounds: found 3, allowed is at most 2"),
    "a round behind the approved ones": (
        {}, {}, jobs(lambda one: one.job(round=3)), "round 3 lies behind the 3 that were approved"),
    "a client of another node": (
        {}, {}, jobs(lambda one: one.job(client="client2")), "client 'client2' is not of this node"),
    "a job of another run": (
        {}, {}, jobs(lambda one: one.job(run="cd" * 16)), "the job is of another run"),
    "another learning rate": ({}, {}, jobs(other_rate), "lr: found 1e+06 for round 0, approved is 0.02"),
    "a job whose id is not its hash": ({}, {}, forged_id, "its id is not the hash of what it says"),
    "parameters that are not finite": ({}, {}, jobs(nan), "allowed are"),
    "parameters from far away": (
        {}, {"max_change": 5.0}, jobs(far), "max_change: the server's parameters have moved by"),
    "parameters of another length": ({}, {}, jobs(wrong_length), "allowed are"),
    "a body of a terabyte": ({}, {}, jobs(huge), "job: promises 1000000000000 bytes"),
    "a body with more in it": ({}, {}, jobs(more_tensors), "job: its body holds 'code/run'"),
    "a body that is a pickle": ({}, {}, jobs(pickled), "job: its body is no safetensors"),
    "a run that adds no noise": (
        {}, {"privacy": {"max_noise_free": False}}, jobs(Hostile.job), "privacy.max_noise_free: the run adds no noise"),
    "noise that the server's seed tells": (
        {"privacy": NOISE["privacy"] | {"noise": "seeded"}, "weighting": "uniform"}, SPENT, jobs(Hostile.job),
        "the policy does not allow it: privacy"),
    "a first use that costs more than the policy's epsilon": (
        NOISE, SPENT, jobs(Hostile.job), "privacy.max_epsilon: this round would bring client 'client0' to"),
    "rows without a secure sum": (
        {}, {"secure_sum": "required"}, jobs(Hostile.job), "secure_sum: found aggregator 'mean'"),
    "rounds of too few clients": (
        {"clients_per_round": 2}, {"min_clients_per_round": 3}, jobs(Hostile.job), "min_clients_per_round: found 2"),
    "outside the hours": (
        {}, {"hours": "00-00"}, jobs(Hostile.job), "hours"),
    "a run id that is a path": (
        {}, {}, lambda one, hello: [one.welcome(hello, run="../../escape")], "run: its id is no hexadecimal number"),
    "a welcome that was said to another node before": (
        {}, {}, lambda one, hello: [one.welcome(hello, signed=b"0" * 32 + one.manifest.digest.encode())],
        "has not signed what it says"),
    "scores that the policy does not name": (
        {"deployment": {"evaluate": True}}, {}, jobs(lambda one: one.job(phase="base", lr=0.0)),
        "scores are not told: metrics: found 'loss', allowed are none"),
    "an evaluation that the run does not plan": (
        {"deployment": {"evaluate": True}}, TOLD, jobs(lambda one: one.job(phase="again", lr=0.0)),
        "the approved run has no evaluation 'again' after 0 rounds"),
    "a planned evaluation at another time": (
        {"deployment": {"evaluate": True}}, TOLD, jobs(lambda one: one.job(phase="final", round=2, lr=0.0)),
        "the approved run has no evaluation 'final' after 2 rounds"),
    "scores of parameters from far away": (
        {"deployment": {"evaluate": True}}, TOLD | {"max_change": 5.0},
        jobs(lambda one: one.job(phase="base", params=one.start() + 100.0)),
        "max_change: the server's parameters have moved by"),
    "a sum over this client and two invented ones": (
        SECURE, {"min_clients_per_round": 3}, sum_over("client0", "nobody", "noone"),
        "min_clients_per_round: found a sum of 3 clients, allowed are 3 or more of this run"),
    "a sum over too few": (
        SECURE, {"min_clients_per_round": 3}, sum_over("client0", "client1"), "found a sum of 2 clients"),
    "a phase of a sum out of turn": (SECURE, {}, a_phase_out_of_turn, "of an attempt that this node is no part of"),
}  # fmt: skip

HONEST_REPORTS = {"a sum over this client and two invented ones", "a sum over too few", "a phase of a sum out of turn"}
"""Cases in which a job is carried out, whose report of a secure sum has no row in it."""


def attacked(tmp_path, monkeypatch, settings, policy, frames):
    made = approved_federation(tmp_path, policy=policy, **settings)
    hostile = Hostile(made)
    monkeypatch.setattr(node_file, "Link", link_to(hostile, lambda hello: frames(hostile, hello)))
    error = ""
    try:
        Node(made.node("north")).run()
    except FedloomError as refusal:
        error = str(refusal)
    told = [line.get("reason", "") for line in made.node("north").ledger.records()]
    return hostile, "\n".join([error, *hostile.said, *told])


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_server_gets_nothing(tmp_path, monkeypatch, attack):
    settings, policy, frames, owner_reads = ATTACKS[attack]
    hostile, read = attacked(tmp_path, monkeypatch, settings, policy, frames)
    assert owner_reads in read, read
    assert hostile.sent == [] and not any(body for _, body in hostile.summed)
    rows = [one for one in hostile.offers if one.get("size")]
    assert rows == []
    reports = [one for one in hostile.offers if one["kind"] == "report"]
    assert len(reports) == (attack in HONEST_REPORTS)
    assert not any(one.get("scores") for one in hostile.offers)
    assert not os.path.exists("owned")


def test_there_are_more_than_twenty():
    assert len(ATTACKS) >= 20


def test_without_an_attack_the_same_server_gets_its_report(tmp_path, monkeypatch):
    """The cases above fail for what they say, and not because nothing works."""
    hostile, _ = attacked(tmp_path, monkeypatch, {}, {}, jobs(Hostile.job))
    assert [one["kind"] for one in hostile.offers] == ["report"] and len(hostile.sent) == 1


def test_a_round_is_answered_once_and_a_server_does_not_go_back(tmp_path, monkeypatch):
    """Another job for an answered round would be a second look at the same data; an older one a replay."""
    hostile, read = attacked(tmp_path, monkeypatch, {}, {}, jobs(Hostile.job, second_look))
    assert len(hostile.sent) == 1 and "another job was answered already; a round is answered once" in read


def test_an_evaluation_is_answered_for_one_set_of_parameters(tmp_path, monkeypatch):
    """Else a server could ask about held-out examples as often as it likes, and with what it likes."""

    def asked(by):
        return lambda one: one.job(phase="base", params=one.start() + by)

    settings, frames = {"deployment": {"evaluate": True}, "evaluation": HELD}, jobs(*map(asked, (0.0, 1e-3, 0.0)))
    hostile, read = attacked(tmp_path, monkeypatch, settings, TOLD, frames)
    told = [one.get("scores") for one in hostile.offers]
    assert [bool(one) for one in told] == [True, False, True] and told[0] == told[2]
    assert "base: other parameters were asked about already; an evaluation is answered once" in read


def test_a_report_that_was_sent_is_the_same_when_it_is_asked_for_again(tmp_path, monkeypatch):
    hostile, _ = attacked(tmp_path, monkeypatch, {}, {}, jobs(Hostile.job, Hostile.job))
    assert len(hostile.sent) == 2 and hostile.sent[0] == hostile.sent[1]


def test_what_a_server_says_reaches_no_terminal_as_it_is(tmp_path, monkeypatch):
    def refuses(one, hello):
        return [Frame({"kind": "refused", "reason": "\x1b[2J\x1b]0;owned\x07 gone"})]

    _, read = attacked(tmp_path, monkeypatch, {}, {}, refuses)
    assert "refuses this node" in read and "\x1b" not in read and "\x07" not in read


def test_another_protocol_is_named(tmp_path, monkeypatch):
    _, read = attacked(tmp_path, monkeypatch, {}, {}, manifest_with("protocol", value=PROTOCOL + 1))
    assert f"protocol: the server's is {PROTOCOL + 1}, this node's {PROTOCOL}" in read or "approval" in read
