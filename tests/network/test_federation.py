"""Nodes and a server on loopback, with keys: the same bytes as in one process, whoever is killed on the way."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from fedloom.base.errors import ConfigError, RunError
from fedloom.network import channel, hub, journal, node, pieces
from fedloom.network.channel import Link
from fedloom.network.door import serving
from fedloom.network.keys import Keys, make_authority, make_key, make_request, revoke, revoked, sign_request
from fedloom.network.link import Unreachable
from fedloom.network.manifest import Manifest, manifest_of
from fedloom.network.node import Node
from fedloom.network.server import read_status, serve_again, welcoming
from fedloom.runs.prepared import load_model
from fedloom.runs.tuning import Deployment
from support.federation import federation
from support.resuming import adapters, logs, run_to_the_end

pytestmark = pytest.mark.timeout(120)
SMALL = {"rounds": 2}
CASES = {
    "plain": {},
    "controls, a lossy codec, some clients": {"rule": "scaffold", "codec": "int8", "clients_per_round": 2, "rounds": 3},
    "feedback of a lossy codec": {"codec": {"name": "top_k", "share": 0.2, "error_feedback": True}},
    "private parameters and moments": {"share": "lora_A", "local": {"steps": 2, "optimiser_state": "kept"}},
    "protected clients": {
        "privacy": {"name": "gaussian", "unit": "client", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 0.1},
        "weighting": "uniform",
    },
}


def rounds_of(folder):
    return [line for line in logs(folder)["ledger.jsonl"] if "bytes" in line]


def checkpoints(folder):
    last = max((folder / "checkpoints").glob("round_*"))
    return {path.name: path.read_bytes() for path in last.glob("*.safetensors") if path.name != "memory.safetensors"}


def same(one, other):
    assert adapters(one) == adapters(other) and adapters(one)
    assert checkpoints(one) == checkpoints(other)
    assert rounds_of(one) == rounds_of(other)


@pytest.mark.parametrize("case", CASES)
def test_rounds_between_machines_are_those_of_one_process(tmp_path, case):
    made = federation(tmp_path, policy=None, **(SMALL | CASES[case]))
    for name in made.owners:  # noise at the server is drawn by a seed here, to be compared
        made.write_policy(name, privacy={"max_noise_free": True, "unit": "client", "seeded_noise": True})
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    if "share" in CASES[case]:  # each client's own part stays with it
        assert rounds_of(tmp_path / "apart") == rounds_of(tmp_path / "one place")
        shared = "params.safetensors"
        assert checkpoints(tmp_path / "apart")[shared] == checkpoints(tmp_path / "one place")[shared]
    else:
        same(tmp_path / "apart", tmp_path / "one place")
    for name, own in made.owners.items():
        told = [line for line in made.node(name).ledger.records() if line["kind"] == "report"]
        server = [line for line in rounds_of(tmp_path / "apart") if line["client"] in own]
        assert sorted((one["round"], one["client"], one["bytes"]) for one in told) == sorted(
            (one["round"], one["client"], one["bytes"]) for one in server
        )


def test_a_server_reads_no_data(tmp_path):
    made = federation(tmp_path, **SMALL)
    made.table["data"]["path"] = str(tmp_path / "nowhere.jsonl")
    made.to_the_end(tmp_path / "apart")
    assert adapters(tmp_path / "apart")
    assert json.loads((tmp_path / "apart" / "partition.json").read_text())["clients"] == list(made.clients)


class Killed(BaseException):
    """A process that is gone: nothing catches it."""


def killing(monkeypatch, owner, name, *, after=False, at=3):
    """Let a method end the process the `at`th time that it is called."""
    method, calls, lock = getattr(owner, name), [], threading.Lock()

    def dying(*args, **more):
        with lock:
            calls.append(1)
            now = len(calls) == at
        if now and not after:
            raise Killed
        found = method(*args, **more)
        if now:
            raise Killed
        return found

    monkeypatch.setattr(owner, name, dying)


POINTS = {
    "before training": (node.Node, "_fetched", True),
    "after training": (node, "report_to", True),
    "after the row": (journal, "write_atomic", False),
    "after the journal": (journal.Journal, "keep", True),
    "while sending": (channel.Link, "offer", False),
    "after sending": (channel.Link, "send", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_node_that_is_killed_answers_from_its_journal(tmp_path, monkeypatch, point):
    made = federation(tmp_path, rule="scaffold", rounds=3)
    owner, name, after = POINTS[point]
    killing(monkeypatch, owner, name, after=after)
    deaths = made.to_the_end_with_deaths(tmp_path / "apart", Killed)
    monkeypatch.undo()
    run_to_the_end(made.run(), tmp_path / "one place")
    assert len(deaths) == 1
    same(tmp_path / "apart", tmp_path / "one place")


@pytest.mark.parametrize(
    ("owner", "name", "after", "at"),
    [(hub.Hub, "open", True, 2), (hub.Hub, "_report", False, 6), (hub.Hub, "reports", False, 2)],
)
def test_a_server_that_is_killed_goes_on_and_nodes_call_it_again(tmp_path, monkeypatch, owner, name, after, at):
    made = federation(tmp_path, rule="scaffold", rounds=3)
    killing(monkeypatch, owner, name, after=after, at=at)
    ready = threading.Event()
    with made.at_work(ready):
        with pytest.raises(Killed):
            list(made.serve(tmp_path / "apart", ready=ready))
        monkeypatch.undo()
        list(serve_again(tmp_path / "apart", listen=f"127.0.0.1:{made.port}"))
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_that_are_killed_by_the_system_end_with_the_same_bytes(tmp_path):
    """The whole thing as it is deployed: a server and nodes as processes, SIGKILL for a node and for the server."""
    made = federation(tmp_path, rule="scaffold", rounds=4)
    made.port = free_port()
    for name in made.owners:
        made.write_node(name)
    import tomli_w

    (tmp_path / "run.toml").write_text(tomli_w.dumps(made.table))
    entries = {name: {"clients": list(own)} for name, own in made.owners.items()}
    (tmp_path / "clients.toml").write_text(tomli_w.dumps({"nodes": entries}))
    keys = made.server_keys
    server = [
        "server",
        "run.toml",
        "--enrolled",
        "clients.toml",
        "--listen",
        f"127.0.0.1:{made.port}",
        "--out",
        "apart",
    ]
    server += ["--certificate", str(keys.certificate), "--key", str(keys.key), "--ca", str(keys.authority)]
    nodes = {name: started(tmp_path, "node", "run", name) for name in made.owners}
    serving = started(tmp_path, *server)
    wait_for(lambda: answers(tmp_path / "north") >= 1)
    nodes["north"].kill()
    nodes["north"].wait()
    nodes["north"] = started(tmp_path, "node", "run", "north")
    wait_for(lambda: answers(tmp_path / "south") >= 2)
    serving.kill()
    serving.wait()
    serving = started(tmp_path, "resume", "apart", "--quiet")
    assert serving.wait(timeout=600) == 0
    assert [process.wait(timeout=600) for process in nodes.values()] == [0, 0, 0]
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
    assert read_status(tmp_path / "apart")["over"]


def answers(folder):
    return len(list(folder.glob("runs/*/answers/*/*.json")))


def started(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "fedloom", *words], cwd=folder, env=environment)


def wait_for(true, *, at_most_s=600):
    end = time.monotonic() + at_most_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# ------------------------------------------------------------------------------------------------- who is let in


@pytest.fixture(scope="module")
def open_door(tmp_path_factory):
    """A server that waits for a round that never comes, and the federation around it."""
    made = federation(tmp_path_factory.mktemp("door"), **SMALL)
    waiting = hub.Hub("ab", made.enrolment, made.folder / "incoming", Deployment())
    manifest = manifest_of(made.run(), load_model(made.run()), made.enrolment.nodes_by_client)
    welcome = welcoming(waiting, manifest, made.server_keys, strict=True)
    listing = made.server_keys.revoked
    with serving(waiting, "127.0.0.1:0", made.server_keys.read(), welcome, revoked=lambda: revoked(listing)) as port:
        made.port = port
        for name in made.owners:
            made.write_node(name)
        yield made


def link_of(made, keys):
    return Link(f"127.0.0.1:{made.port}", "study", keys, "north")


def keys_of(made, name="north", **changes):
    from dataclasses import replace

    return replace(made.node(name).keys(), **changes)


def other_keys(made, name, kind="node", **more):
    home = made.folder / f"made-{name}-{os.urandom(3).hex()}"
    home.mkdir()
    make_key(home / "node.key")
    authority = more.pop("authority", made.folder / "ca")
    text, who = sign_request(authority, make_request(home / "node.key", kind, name), kind, **more)
    return keys_of(made, certificate=text, key=(home / "node.key").read_bytes()), who


def test_a_node_with_its_own_certificate_is_let_in(open_door):
    link = link_of(open_door, keys_of(open_door))
    assert link.ping() == "it knows this node"
    link.close()


def foreign(made):
    home = made.folder / f"foreign{os.urandom(3).hex()}"
    make_authority(home, "foreign")
    return other_keys(made, "north", authority=home)[0]


def expired(made):
    import datetime as dt

    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=200)
    return other_keys(made, "north", now=long_ago)[0]


@pytest.mark.parametrize("make", [foreign, expired], ids=["another authority", "expired"])
def test_who_has_no_valid_certificate_gets_no_connection(open_door, make):
    link = link_of(open_door, make(open_door))
    with pytest.raises(Unreachable):
        link.ping()
    link.close()


def test_without_a_certificate_there_is_no_connection(open_door):
    link = link_of(open_door, None)
    with pytest.raises(Unreachable):
        link.ping()
    link.close()


def test_a_stranger_that_the_authority_knows_is_not_let_in(open_door):
    link = link_of(open_door, other_keys(open_door, "stranger")[0])
    assert link.ping() == "node 'stranger': is not enrolled."
    link.close()


def test_a_revoked_certificate_is_not_let_in(open_door):
    keys, who = other_keys(open_door, "west")
    link = link_of(open_door, keys)
    assert link.ping() == "it knows this node"
    revoke(open_door.server_keys.revoked, who.fingerprint)
    assert "revoked" in link.ping()
    link.close()


def test_a_server_with_a_nodes_certificate_is_not_the_server(open_door, tmp_path):
    """Who has a certificate of the federation cannot play the server: it names no host."""
    made = open_door
    keys = keys_of(made, "south")
    listening = hub.Hub("ab", made.enrolment, tmp_path, made.run().deployment)
    with serving(listening, "127.0.0.1:0", keys, lambda node, hello: None) as port:
        link = Link(f"127.0.0.1:{port}", "study", keys_of(made), "north")
        with pytest.raises(Unreachable, match="not that of the server this node knows"):
            link.ping()
        link.close()


def test_a_server_that_the_policy_does_not_name_gets_nothing(open_door):
    made = open_door
    made.write_policy("north", servers=["ab" * 32])
    try:
        with pytest.raises(ConfigError, match=r"servers: found server 'study' with fingerprint .*, not in the policy"):
            Node(made.node("north")).run()
    finally:
        made.write_policy("north")


def test_something_that_ends_tls_on_the_way_is_named(open_door, tmp_path):
    made = open_door
    home = tmp_path / "box"
    make_authority(home, "box")
    make_key(home / "server.key")
    text, _ = sign_request(home, make_request(home / "server.key", "server", "study"), "server")
    box = Keys(text, (home / "server.key").read_bytes(), (home / "ca.pem").read_text())
    listening = hub.Hub("ab", made.enrolment, tmp_path / "in", made.run().deployment)
    with serving(listening, "127.0.0.1:0", box, lambda node, hello: None) as port:
        link = Link(f"127.0.0.1:{port}", "study", keys_of(made), "north")
        with pytest.raises(Unreachable, match="something between ends TLS"):
            link.ping()
        link.close()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:7443", "example.org:1"])
def test_off_loopback_nothing_starts_without_certificates(open_door, tmp_path, address):
    listening = hub.Hub("ab", open_door.enrolment, tmp_path, open_door.run().deployment)
    with (
        pytest.raises(ConfigError, match="without certificates, allowed is a loopback address"),
        serving(listening, address, None, lambda node, hello: None),
    ):
        pass
    with pytest.raises(ConfigError, match="without certificates, allowed is a loopback address"):
        Link(address, "study", None, "north")


def test_a_port_in_use_is_one_line(open_door, tmp_path):
    listening = hub.Hub("ab", open_door.enrolment, tmp_path, open_door.run().deployment)
    with (
        pytest.raises(RunError, match="is taken or is not of this machine"),
        serving(listening, f"127.0.0.1:{open_door.port}", open_door.server_keys.read(), lambda node, hello: None),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"protocol": 2}, "protocol: the node's is 2, the server's 1"),
        ({"protocol": None}, "protocol: the node's is None"),
        ({"clients": ["client0"]}, "is enrolled with client0, client1, its node.toml has not all of them"),
        ({"nonce": 3}, "nonce: found int"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(open_door, changes, text):
    hello = {"kind": "hello", "protocol": 1, "clients": ["client0", "client1"], "nonce": "ab"} | changes
    link = link_of(open_door, keys_of(open_door))
    (frame,) = link.join(hello)
    assert frame.header["kind"] == "refused" and text in frame.header["reason"]
    link.close()


def test_nodes_that_differ_are_refused_where_a_run_is_strict(open_door, tmp_path):
    made = open_door
    waiting = hub.Hub("ab", made.enrolment, tmp_path, made.run().deployment)
    manifest = Manifest.parsed(next((made.folder / "north" / "approved").glob("*.json")).read_text())
    hello = {"kind": "hello", "protocol": 1, "clients": ["client0", "client1"], "nonce": "ab"}
    strict, lax = (welcoming(waiting, manifest, made.server_keys, strict=one) for one in (True, False))
    for welcome in (strict, lax):
        assert welcome("north", hello | {"machine": {"capability": "AVX512"}}).header["kind"] == "welcome"
    other = hello | {"machine": {"capability": "DEFAULT"}}
    assert lax("north", other).header["kind"] == "welcome"
    with pytest.raises(ConfigError, match="differs from the first one in capability"):
        strict("north", other)


@pytest.mark.parametrize("data", [b"", b"junk", b"FLM1\xff\xff\xff\xff", b"x" * 100_000])
def test_junk_is_answered_by_one_line(open_door, data):
    link = link_of(open_door, keys_of(open_door))
    for name in ("Offer", "Say"):
        (answer,) = link._asked(name, [data])
        assert b"refused" in answer and b"frame" in answer
    link.close()


# --------------------------------------------------------------------------------------------- what a node refuses


def refused_by(made, name="north"):
    return [line["reason"] for line in made.node(name).ledger.records() if line["kind"] == "refused"]


DEMANDS = {
    "a rule": ({"rules": ["prox"]}, "rules: found 'plain', allowed is prox"),
    "bytes": ({"max_bytes_up": 100}, "max_bytes_up: found"),
    "steps": ({"max_steps": 1}, "max_steps: found 2, allowed is at most 1"),
    "examples": ({"min_examples": 1000}, "min_examples: client 'client0' has"),
    "hours": ({"hours": ""}, "hours: no jobs are taken now"),
    "a jump": ({"max_change": 0.0}, "max_change: the server's parameters have moved by"),
}


@pytest.mark.parametrize("demand", DEMANDS)
def test_what_the_policy_does_not_allow_is_not_carried_out_and_the_server_is_told(tmp_path, demand):
    changes, text = DEMANDS[demand]
    made = federation(tmp_path, min_clients=1, deployment={"deadline_s": 3.0}, rounds=1 + (demand == "a jump"))
    made.write_policy("north", **changes)
    ready = threading.Event()
    with made.at_work(ready):
        list(made.serve(tmp_path / "apart", ready=ready))
    assert text in refused_by(made)[0]
    missing = [line for line in logs(tmp_path / "apart")["ledger.jsonl"] if line["what"].startswith("nothing")]
    assert {line["client"] for line in missing} >= {"client0", "client1"}
    assert answers(tmp_path / "north") <= 2 * (demand == "a jump")  # the first parameters are those of the start


def test_a_changed_manifest_waits_for_approval(tmp_path):
    made = federation(tmp_path, rounds=1)
    made.table["local"] = made.table["local"] | {"lr": 0.03}
    ready = threading.Event()
    with made.at_work(ready):
        thread = threading.Thread(target=lambda: list(made.serve(tmp_path / "apart", ready=ready)), daemon=True)
        thread.start()
        wait_for(lambda: all(made.node(name).waiting() for name in made.owners))
        assert not answers(tmp_path / "north")
        for name in made.owners:
            made.node(name).approve(Manifest.parsed(made.node(name).waiting()[0].read_text()))
        thread.join(timeout=60)
    assert adapters(tmp_path / "apart")
    assert "waits for its owner's approval" in refused_by(made)[0]


def test_an_approval_is_signed_with_the_nodes_own_key(tmp_path):
    made = federation(tmp_path)
    north, south = made.node("north"), made.node("south")
    (path,) = (north.path / "approved").glob("*.signature")
    digest = path.stem
    assert north.is_approved(digest)
    path.write_text((south.path / "approved" / path.name).read_text())
    assert not north.is_approved(digest)
    path.write_text("junk")
    assert not north.is_approved(digest) and not north.is_approved("ab" * 32)


def test_leaving_takes_back_every_approval_and_keeps_what_was_counted(tmp_path):
    made = federation(tmp_path, rounds=1)
    made.to_the_end(tmp_path / "apart")
    north = made.node("north")
    (run,) = (north.path / "runs").glob("*")
    journal.Journal(run).count("client0", 3)
    assert north.revoke_approvals() == 1
    north.delete_journals()
    assert not list((north.path / "approved").glob("*")) and not answers(north.path)
    assert journal.Journal(run).uses() == {"client0": 3}
    assert [line["kind"] for line in north.ledger.records()][-2:] == ["left", "deleted"]


# -------------------------------------------------------------------------------------------------- broken links


def test_a_link_that_is_cut_again_and_again_delivers_everything(tmp_path, monkeypatch):
    """A relay that lets some hundred thousand bytes through and hangs up; bodies and packets go on where they broke."""
    monkeypatch.setattr(pieces, "CHUNK", 2048)
    made = federation(tmp_path, rounds=1)
    ready = threading.Event()
    with relay(made, cut_after=16_000) as port:
        threads = []
        stop = threading.Event()

        def work(name):
            ready.wait()
            made_address(made, name, port())
            Node(made.node(name)).run(stop)

        threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in made.owners]
        for thread in threads:
            thread.start()
        list(made.serve(tmp_path / "apart", ready=ready))
        stop.set()
        for thread in threads:
            thread.join(timeout=20)
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def made_address(made, name, port):
    made.write_node(name, address=f"127.0.0.1:{port}")


class relay:
    """A relay on loopback that hangs up after so many bytes of each connection."""

    def __init__(self, made, cut_after):
        self.made, self.cut_after = made, cut_after
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.cuts = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return lambda: self.socket.getsockname()[1]

    def __exit__(self, *_):
        self.socket.close()
        assert self.cuts > 2

    def _accept(self):
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.made.port))
            except OSError:
                near.close()
                continue
            left = [self.cut_after]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other, left), daemon=True).start()

    def _pass(self, one, other, left):
        try:
            while data := one.recv(4096):
                left[0] -= len(data)
                if left[0] < 0:
                    self.cuts += 1
                    break
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


# ---------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_ends_a_node_with_one_line_and_loses_nothing(tmp_path, monkeypatch):
    """It is started anew once there is room; what it had not written down is trained once more, and sent once."""
    from fedloom.base import files

    made = federation(tmp_path, rounds=2)
    sync, refusals, run = files.sync, [], Node.run

    def full(file):
        if "answers" in str(file.name) and not refusals:
            raise OSError(28, "No space left on device")
        sync(file)

    def ending(self, *given):
        try:
            run(self, *given)
        except RunError as error:
            refusals.append(str(error))
            raise

    monkeypatch.setattr(files, "sync", full)
    monkeypatch.setattr(Node, "run", ending)
    deaths = made.to_the_end_with_deaths(tmp_path / "apart", RunError)
    assert len(deaths) == len(refusals) >= 1
    assert all("the disk is full; free some space" in line and "\n" not in line for line in refusals)
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
