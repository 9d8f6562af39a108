"""A run through a box that ends TLS: the bytes of the run without it, and for the box nothing to read or to change."""

import contextlib
import math

import pytest

from fedloom.base.errors import ConfigError
from fedloom.network import channel, steps
from fedloom.network.channel import Link
from fedloom.network.frames import Frame
from fedloom.network.keys import revoke
from fedloom.network.link import Unreachable
from fedloom.split.lockstep import Lockstep
from support.federation import federation
from support.models import model_folder
from support.resuming import adapters
from support.small_runs import write_records
from support.tls_relay import TlsRelay, chi_squared

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
SPLIT = {
    "protocol": {"name": "split", "wire": "float32"},
    "local": {"lr": 0.02, "steps": 2, "batch": 3},
    "rounds": 1,
    "deployment": {"sealed": True},
}


def relayed_federation(folder, owners=("north", "south"), **changes):
    """Nodes that dial a relay, which alone dials the server."""
    model_folder(folder / "model", num_hidden_layers=4)
    write_records(folder / "data.jsonl", clients=len(owners))
    own = {name: (f"client{number}",) for number, name in enumerate(owners)}
    made = federation(folder, own, policy={"split": True}, **(SPLIT | changes))
    return made, TlsRelay(made)


def through(made, relay, out, **more):
    """Carry out a run whose nodes have no other way than the relay, and return what the nodes said."""
    write_node, opened, port = made.write_node, contextlib.ExitStack(), []

    def write(name, **changes):
        if not port:
            port.append(opened.enter_context(relay.open(made.port)))
        write_node(name, **({"relay": "gate", "address": f"127.0.0.1:{port[0]}"} | changes))

    made.write_node = write
    try:
        with opened:
            return made.to_the_end(out, relays=["gate"], **more)
    finally:
        made.write_node = write_node


def test_a_split_run_through_a_relay_has_the_bytes_of_one_without(tmp_path):
    made, relay = relayed_federation(tmp_path / "one")
    through(made, relay, tmp_path / "relayed")
    (tmp_path / "two").mkdir()
    other, _ = relayed_federation(tmp_path / "two", deployment={})
    other.to_the_end(tmp_path / "straight")
    assert adapters(tmp_path / "relayed") == adapters(tmp_path / "straight") != {}
    assert relay.up and relay.down


def test_what_the_relay_has_is_noise_and_holds_nothing_that_was_said(tmp_path, monkeypatch):
    made, relay = relayed_federation(tmp_path)
    packets, heads, in_frames = [], [], steps.in_frames

    def seen(message, job=""):
        packets.append(message.packet.numpy().tobytes())
        for frame in in_frames(message, job):
            heads.append(frame.header)
            yield frame

    monkeypatch.setattr(channel, "in_frames", seen)
    through(made, relay, tmp_path / "relayed")
    passed = relay.up + relay.down
    records = b"".join(data[17:] for data in passed if data[:4] == b"FLX1")
    everything = b"".join(passed)
    assert len(records) > 50_000 and len(packets) == 8  # two clients, two steps, FWD and GRAD
    assert chi_squared(b"".join(packets)) > 10 * chi_squared(records)
    assert chi_squared(records) < 255 + 6 * math.sqrt(2 * 255)
    for packet in packets:
        assert not any(packet[at : at + 16] in everything for at in range(0, len(packet), len(packet) // 50))
    for word in (b"client0", b"north", b"lengths", b"FWD", b"weight", b"layout", heads[0]["digest"].encode()):
        assert word not in everything
    greetings = [data for data in passed if data[:4] == b"FLM1"]
    told = {key for data in greetings for key in Frame.decoded(data).header}
    assert told == {"kind", "version", "public", "certificate", "run", "signature"}  # the server's, and no node's
    assert {len(data) for data in passed if data[:4] not in (b"FLX1", b"FLM1")} == {24}


TAMPERING = {
    "a byte changed": lambda data: [data[:-1] + bytes([data[-1] ^ 1])],
    "sent twice": lambda data: [data, data],
    "cut short": lambda data: [data[:-5]],
    "left out": lambda data: [],
}


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("what", TAMPERING)
def test_a_call_that_the_relay_has_touched_is_refused_and_made_again(tmp_path, monkeypatch, what, way):
    """Nothing is applied twice: the lockstep computes each batch once, and the adapter is that of a quiet relay."""
    made, relay = relayed_federation(tmp_path)
    computed, touched, compute = [], [], Lockstep._compute

    def counted(self, place, messages):
        computed.append((place.name, tuple(one.client for one in messages)))
        return compute(self, place, messages)

    def change(name, number, data):
        if name == "Sealed" and len(data) > 4000 and len(touched) < 3:  # states and gradients
            touched.append(data)
            return TAMPERING[what](data)
        return [data]

    monkeypatch.setattr(Lockstep, "_compute", counted)
    setattr(relay, f"change_{way}", change)
    through(made, relay, tmp_path / "relayed")
    assert len(touched) == 3
    assert len(computed) == len(set(computed)) == 4 and all(len(clients) == 2 for _, clients in computed)
    quiet, _ = relayed_federation(tmp_path / "quiet", deployment={})
    quiet.to_the_end(tmp_path / "straight")
    assert adapters(tmp_path / "relayed") == adapters(tmp_path / "straight")


# ------------------------------------------------------------------------------------------------- who is let through


@pytest.fixture
def served(tmp_path):
    """A federation, its relay, and a server that waits; the relay is named, and nodes in clear are refused."""
    from fedloom.network.door import serving
    from fedloom.network.hub import Hub
    from fedloom.network.keys import revoked
    from fedloom.runs.tuning import Deployment

    made = federation(tmp_path, rounds=1)
    relay, other = TlsRelay(made), TlsRelay(made, "stranger")
    hub = Hub("ab", made.enrolment, tmp_path / "incoming", Deployment(sealed=True))
    listing = made.server_keys.revoked
    with (
        serving(
            hub, "127.0.0.1:0", made.server_keys.read(), None, revoked=lambda: revoked(listing), relays=["gate"]
        ) as port,
        relay.open(port) as gate,
        other.open(port) as stranger,
    ):
        yield made, {"server": port, "gate": gate, "stranger": stranger, "gate's fingerprint": relay.who.fingerprint}


def pinged(made, port, name="north", **more):
    link = Link(f"127.0.0.1:{port}", "study", made.node(name).keys(), name, **more)
    try:
        return link.ping()
    finally:
        link.close()


def test_a_node_is_known_by_what_it_signs_whoever_carries_it(served):
    made, ports = served
    assert pinged(made, ports["gate"], relay="gate") == "it knows this node"
    assert pinged(made, ports["server"], sealed=True) == "it knows this node"


def test_a_call_in_clear_is_refused_where_calls_are_sealed(served):
    made, ports = served
    assert "deployment.sealed: found a call in clear" in pinged(made, ports["server"])


def test_a_relay_that_the_server_does_not_name_carries_nothing(served):
    made, ports = served
    with pytest.raises(Unreachable, match="found 'stranger', which may carry no calls; name it by --relay"):
        pinged(made, ports["stranger"], relay="stranger")


def test_a_relay_of_another_name_than_the_nodes_is_not_dialled(served):
    made, ports = served
    with pytest.raises(Unreachable, match="something between ends TLS"):
        pinged(made, ports["gate"], relay="other")


def test_a_revoked_node_is_refused_behind_a_relay_and_so_is_a_revoked_relay(served):
    from fedloom.network.keys import identity_of

    made, ports = served
    listing = made.server_keys.revoked
    link = Link(f"127.0.0.1:{ports['gate']}", "study", made.node("south").keys(), "south", relay="gate")
    assert link.ping() == "it knows this node"
    revoke(listing, identity_of(made.node("south").keys().certificate).fingerprint)
    assert "revoked" in link.ping()  # in the connection it has
    link.close()
    with pytest.raises(ConfigError, match="refuses this node: certificate of 'south': revoked"):
        pinged(made, ports["gate"], "south", relay="gate")
    revoke(listing, ports["gate's fingerprint"])
    with pytest.raises(Unreachable, match="certificate of 'gate': revoked"):
        pinged(made, ports["gate"], relay="gate")


def test_a_node_speaks_for_no_other_node(served):
    """Whoever is no relay stands behind its own connection alone: a node is no relay for its neighbour."""
    made, ports = served
    north, south = made.node("north").keys(), made.node("south").keys()
    link = Link(f"127.0.0.1:{ports['server']}", "study", north, "north", sealed=True)
    link._sealed._keys = south
    with pytest.raises(ConfigError, match="relay: found 'north' for node 'south'"):
        link.ping()
    link.close()


def test_what_cannot_be_is_refused_before_anything_starts(tmp_path):
    from fedloom.network.door import serving
    from fedloom.network.hub import Hub
    from fedloom.runs.tuning import Deployment

    made = federation(tmp_path, rounds=1)
    hub = Hub("ab", made.enrolment, tmp_path / "incoming", Deployment())
    with pytest.raises(ConfigError, match="sealed: found a node without a certificate"):
        Link("127.0.0.1:1", "study", None, "north", sealed=True)
    with pytest.raises(ConfigError, match="sealed: found a server without certificates"):
        serving(hub, "127.0.0.1:0", None, None, relays=["gate"]).__enter__()
    with pytest.raises(ConfigError, match="relay: found 'north', which is a node"):
        serving(hub, "127.0.0.1:0", made.server_keys.read(), None, relays=["north"]).__enter__()
