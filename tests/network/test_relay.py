"""Rounds through a relay that carries envelopes: the bytes of one process, and nothing that the relay could make up."""

import json
import threading

import pytest
import tomli_w

from fedloom.base.errors import ConfigError, DataError, RunError
from fedloom.network import relay_link
from fedloom.network.envelope import Envelope, sealed
from fedloom.network.flower import FlowerPlace
from fedloom.network.frames import CHUNK, Frame
from fedloom.network.hub import Hub
from fedloom.network.keys import sign_bytes
from fedloom.network.link import Unreachable
from fedloom.network.server import serve_again
from fedloom.runs.execute import RoundDone
from support.command import fedloom
from support.federation import asked_federation, federation
from support.relay import Relay, linked, serving
from support.resuming import adapters, logs, run_to_the_end

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
SECURE = {"aggregator": {"name": "secure_sum", "clip": 0.5}, "weighting": "uniform"}
CASES = {
    "plain": {},
    "controls and a lossy codec": {"rule": "scaffold", "codec": "int8", "clients_per_round": 2, "rounds": 3},
    "secure sums": SECURE,
}


def rounds_of(folder):
    return [line for line in logs(folder)["ledger.jsonl"] if "bytes" in line]


def same(one, other):
    assert adapters(one) == adapters(other) and adapters(one)
    assert rounds_of(one) == rounds_of(other)


def refused_by(made, name):
    return [line for line in made.node(name).ledger.records() if line["kind"] == "refused"]


@pytest.fixture
def relay():
    return Relay(("north", "south", "west"))


def carried(made, relay, monkeypatch, out, **more):
    with serving(monkeypatch, relay) as flower:
        return made.to_the_end(out, link=linked(made, relay), flower=flower, **more)


@pytest.mark.parametrize("case", CASES)
def test_rounds_through_a_relay_are_those_of_one_process(tmp_path, monkeypatch, relay, case):
    made = federation(tmp_path, **({"rounds": 2} | CASES[case]))
    carried(made, relay, monkeypatch, tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def test_scores_of_nodes_go_through_a_relay(tmp_path, monkeypatch, relay):
    made = asked_federation(tmp_path, rounds=1)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    told = [line for line in logs(tmp_path / "apart")["ledger.jsonl"] if "held-out" in line.get("what", "")]
    assert len(told) == 8 and {line["client"] for line in told} == {"client0", "client1", "client2", "client3"}


def test_bodies_and_packets_of_many_pieces_arrive(tmp_path, monkeypatch, relay):
    from fedloom.network import pieces

    monkeypatch.setattr(pieces, "CHUNK", 1000)
    made = federation(tmp_path, rounds=2)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def test_a_body_that_was_not_kept_is_asked_for(tmp_path, monkeypatch, relay):
    monkeypatch.setattr(relay_link.RelayLink, "_keep_body", lambda self, digest, data: None)
    made = federation(tmp_path, rounds=1)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    assert adapters(tmp_path / "apart")


@pytest.mark.slow
def test_answers_that_are_lost_change_nothing(tmp_path, monkeypatch, relay):
    """Every seventh answer fails, as one does whose node has died: the session ends, the next gets the open jobs."""
    seen = []
    relay.on_answer = lambda place, data: (seen.append(1), None if len(seen) % 7 == 0 else data)[1]
    made = federation(tmp_path, rounds=3)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
    assert len(seen) > 14


def test_a_server_that_has_died_goes_on_with_another_run_of_the_relay(tmp_path, monkeypatch, relay):
    made = federation(tmp_path, rule="scaffold", rounds=3)
    ready = threading.Event()
    with serving(monkeypatch, relay) as flower, made.at_work(ready, linked(made, relay)):
        events = made.serve(tmp_path / "apart", ready=ready, flower=flower)
        while not isinstance(next(events), RoundDone):
            pass
        events.close()
        monkeypatch.setattr("fedloom.network.server._flower_from", lambda told: flower)
        list(serve_again(tmp_path / "apart"))
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def test_a_relay_that_is_gone_for_good_ends_the_run_in_one_line(tmp_path, monkeypatch, relay):
    made = federation(tmp_path, rounds=1)

    def gone():
        raise RunError("127.0.0.1:1: refuses (401): the run or its task is over.")

    relay.nodes = gone
    with pytest.raises(RunError, match=r"refuses \(401\)"):
        carried(made, relay, monkeypatch, tmp_path / "apart")


def test_a_hello_that_is_none_ends_no_run(tmp_path, monkeypatch, relay):
    made, hellos = federation(tmp_path, rounds=1), []
    joined = Hub.joined

    def odd(self, node, told, *more):
        hellos.append(node)
        return joined(self, node, dict(told) | ({"machine": [1]} if len(hellos) == 1 else {}), *more)

    monkeypatch.setattr(Hub, "joined", odd)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    assert adapters(tmp_path / "apart") and len(hellos) > len(made.owners)


def test_a_node_that_no_call_reaches_says_so(tmp_path, monkeypatch, relay):
    made = federation(tmp_path, rounds=1)
    with serving(monkeypatch, relay), pytest.raises(Unreachable, match="no call has come for 1 s"):
        next(linked(made, relay)("north")().join({"nonce": "ab"}))


def test_what_the_run_needs_to_go_on_has_no_secret(tmp_path, monkeypatch, relay):
    made = federation(tmp_path, rounds=1)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    told = json.loads((tmp_path / "apart" / "deployment.json").read_text())
    assert told["flower"] == {"address": "127.0.0.1:1"}


# ------------------------------------------------------------------------------------------------ what a relay tries


def flipped(at):
    return lambda place, data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def first_changed(place, seen, at):
    """What flips a byte in the first four of what passes to or from a place."""

    def change(where, data):
        if where != place or len(seen) > 3:
            return data
        seen.append(1)
        return flipped(at % len(data))(where, data)

    return change


@pytest.mark.parametrize("at", [0, 5, 20, 90, -1])
def test_a_byte_that_a_relay_changes_in_a_call_is_noticed(tmp_path, monkeypatch, relay, at):
    made = federation(tmp_path, rounds=1, min_clients=1, deployment={"deadline_s": 1.0})
    place, seen = relay.places["north"], []

    relay.on_call = first_changed(place, seen, at)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    assert refused_by(made, "north") and adapters(tmp_path / "apart")


@pytest.mark.parametrize("at", [0, 5, 20, 90, -1])
def test_a_byte_that_a_relay_changes_in_an_answer_is_noticed(tmp_path, monkeypatch, relay, at, caplog):
    made = federation(tmp_path, rounds=1)
    place, seen = relay.places["north"], []

    relay.on_answer = first_changed(place, seen, at)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
    assert len(seen) == 4


@pytest.mark.slow
def test_answers_of_another_node_and_old_ones_are_not_taken(tmp_path, monkeypatch, relay):
    """A relay that answers for one node what it has heard from another, and what it has heard before."""
    made = federation(tmp_path, rounds=2)
    heard = []

    def mix(place, data):
        heard.append(data)
        return heard[len(heard) // 2] if len(heard) % 5 == 0 else data

    relay.on_answer = mix
    carried(made, relay, monkeypatch, tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def test_calls_that_a_relay_sends_twice_do_nothing(tmp_path, monkeypatch, relay):
    made = federation(tmp_path, rounds=2)
    place, before = relay.places["south"], []

    def twice(to, data):
        if to == place:
            relay.waiting[place].put(("again", before[-1] if before else data))
            before.append(data)
        return data

    relay.on_call = twice
    carried(made, relay, monkeypatch, tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def test_a_server_that_the_policy_does_not_name_is_refused_and_the_ledger_says_so(tmp_path, monkeypatch, relay):
    made = federation(tmp_path, rounds=1, min_clients=1, deployment={"deadline_s": 1.0})
    made.write_policy("north", servers=["ab" * 32])
    carried(made, relay, monkeypatch, tmp_path / "apart")
    (line,) = refused_by(made, "north")
    assert "not in the policy" in line["reason"] and line["relayed"].startswith("relay ")
    assert not list(made.node("north").path.glob("runs/*/answers"))


def test_what_is_no_envelope_is_refused_and_the_rest_goes_on(tmp_path, monkeypatch, relay):
    """Tasks of a bundle of somebody else's between those of the run."""
    made = federation(tmp_path, rounds=1)
    for place in relay.waiting:
        relay.waiting[place].put(("stranger 1", None))
        relay.waiting[place].put(("stranger 2", b"import os"))
    carried(made, relay, monkeypatch, tmp_path / "apart")
    assert adapters(tmp_path / "apart")
    for name in made.owners:
        reasons = [line["reason"] for line in refused_by(made, name)]
        assert reasons[0].startswith("it holds no frames of fedloom") and "no envelope" in reasons[1]


def test_a_node_without_a_certificate_joins_no_relay(tmp_path, relay):
    made = federation(tmp_path, rounds=1)
    (made.node("north").path / "node.pem").unlink()
    with pytest.raises(ConfigError, match=r"node.pem: missing; .* certificates alone"):
        linked(made, relay)("north")()


def test_a_server_without_a_certificate_is_carried_by_no_relay(tmp_path, monkeypatch, relay):
    made = federation(tmp_path, rounds=1)
    made.server_keys = None
    with serving(monkeypatch, relay) as flower, pytest.raises(ConfigError, match="certificates alone"):
        list(made.serve(tmp_path / "apart", flower=flower))


# ---------------------------------------------------------------------------------------------------- envelopes


def sign(said):
    return b"s" * 70


def test_an_envelope_comes_out_as_it_went_in():
    frames = [Frame({"kind": "a"}, b"x" * CHUNK), Frame({"kind": "b"}), Frame({}, b"\0")]
    found = Envelope.read(sealed({"certificate": "c", "session": "s"}, frames, sign))
    assert (found.certificate, found.signature, found.text("session")) == ("c", b"s" * 70, "s")
    assert list(found.frames()) == frames


@pytest.mark.parametrize(
    "data", [b"", b"FLE1", b"FLE1\xff\xff", b"x" * 1000, b"FLE1\0\0\xff\xff\xff\xff", b"FLE1" + b"\0" * 99]
)
def test_what_is_no_envelope_is_told_in_one_line(data):
    with pytest.raises(DataError, match=r"^(envelope|frame): ") as told:
        Envelope.read(data)
    assert "\n" not in str(told.value)


def test_an_envelope_that_is_cut_is_none():
    whole = sealed({"certificate": "c"}, [Frame({"kind": "a"}, b"x" * 100)], sign)
    for end in range(len(whole) - 1, 80, -7):
        with pytest.raises(DataError):
            list(Envelope.read(whole[:end]).frames())


def test_signatures_are_of_the_whole_envelope(tmp_path):
    made = federation(tmp_path, rounds=1)
    key = made.server_keys.key
    certificate = made.server_keys.certificate.read_text()
    data = sealed({"certificate": certificate}, [Frame({"kind": "a"})], lambda said: sign_bytes(key, said))
    good, bad = Envelope.read(data), Envelope.read(data[:-1] + b"!")
    made.node("north").check_server(good.certificate, good.signature.hex(), good.said)
    with pytest.raises(ConfigError, match="has not signed"):
        made.node("north").check_server(bad.certificate, bad.signature.hex(), bad.said)


# ------------------------------------------------------------------------------------------------- Flower's places


def test_a_secret_that_others_may_read_is_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="found mode 0644, allowed is 0600"):
        FlowerPlace("127.0.0.1:9094", secret)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--flower", "127.0.0.1:1"], "secret: missing; 127.0.0.1:1 gives tasks to whoever has the file"),
        (["--flower", "127.0.0.1:1", "--secret", "nowhere"], "nowhere: no such key"),
        (["--flower", "10.0.0.1:1", "--secret", "secret"], "flower: found 10.0.0.1:1 without --flower-ca"),
    ],
)
def test_commands_refuse_a_place_without_what_it_needs_in_one_line(tmp_path, monkeypatch, capsys, words, text):
    made = federation(tmp_path, rounds=1)
    (tmp_path / "run.toml").write_text(tomli_w.dumps(made.table))
    (tmp_path / "clients.toml").write_text('[nodes.north]\nclients = ["client0"]\n')
    for command in (["node", "run", "north"], ["server", "run.toml"]):
        monkeypatch.chdir(tmp_path)
        assert fedloom(monkeypatch, *command, *words) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert text in line


def test_a_place_off_loopback_needs_an_authority(tmp_path):
    with pytest.raises(ConfigError, match=r"^flower: found 10\.0\.0\.1:9094 without --flower-ca"):
        FlowerPlace("10.0.0.1:9094", tmp_path / "secret")


def test_a_packet_that_had_arrived_whole_is_looked_at_when_it_is_offered_again(tmp_path, monkeypatch, relay):
    """A server that was killed between the last byte and the verdict has it all; then nothing is left to be sent."""
    made, added = federation(tmp_path, rounds=1), []
    arrived = Hub.arrived

    def late(self, node, job, start, data):
        if not added and data:
            added.append(job)
            header = self._current().headers
            client = next(one for one, frame in self._current().jobs.items() if frame.id == job)
            from fedloom.network.pieces import Piece

            piece = Piece(header[client]["digest"], header[client]["size"])
            self._inbox.add(self._name(self._current().jobs[client]), piece, start, data)
            return arrived(self, node, job, 0, data[:1])  # it does not fit: asked for from where the bytes end
        return arrived(self, node, job, start, data)

    monkeypatch.setattr(Hub, "arrived", late)
    carried(made, relay, monkeypatch, tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
    assert added
