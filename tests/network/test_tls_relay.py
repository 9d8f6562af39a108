"""A run through a box that ends TLS: the bytes of the run without it, and for the box nothing to read or to change."""

import contextlib
import threading
import time

import pytest
import torch

from fedloom.base.errors import ConfigError
from fedloom.network import channel, steps
from fedloom.network.channel import Link
from fedloom.network.frames import Frame
from fedloom.network.keys import revoke
from fedloom.network.link import Unreachable
from fedloom.network.node import Node
from fedloom.split.lockstep import Lockstep
from support.federation import federation
from support.models import model_folder
from support.resuming import adapters
from support.small_runs import write_records
from support.tls_relay import TlsRelay

pytestmark = pytest.mark.timeout(180)
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
