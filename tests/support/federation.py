"""A federation on loopback: an authority, a server and nodes, each with keys of its own, all made on the spot."""

import contextlib
import threading
from dataclasses import dataclass, field

import tomli_w

from fedloom.base import config
from fedloom.base.errors import FedloomError
from fedloom.network import keys as k
from fedloom.network.enrolment import Enrolment
from fedloom.network.manifest import manifest_of
from fedloom.network.node import Node
from fedloom.network.node_file import NodeFolder
from fedloom.network.server import ServerKeys, serve
from fedloom.runs.prepared import load_model
from fedloom.runs.tuning import read_run
from support.small_runs import small_table

OPEN = {
    "rules": ["plain", "prox", "scaffold"],
    "tasks": ["sft"],
    "codecs": ["float32", "int8", "top_k", "bfloat16"],
    "max_rounds": 100,
    "max_steps": 100,
    "max_batch": 100,
    "max_length": 100,
    "max_bytes_up": 10**8,
    "max_change": 1e6,
    "min_clients_per_round": 1,
    "min_examples": 1,
    "secure_sum": "allowed",
    "hours": "00-24",
    "privacy": {"max_noise_free": True, "max_epsilon": 1e6},
}
BY_TEXT = {"holdout_by": "text", "max_new_tokens": 3, "resamples": 20}


@dataclass
class Federation:
    """What all parties have on disk."""

    folder: object
    table: dict
    owners: dict
    """Clients by node."""
    policy: dict = field(default_factory=dict)
    port: int = 0
    server_keys: ServerKeys = None
    fingerprint: str = ""
    deaths: list = field(default_factory=list)

    @property
    def clients(self):
        return tuple(client for own in self.owners.values() for client in own)

    @property
    def enrolment(self):
        return config.build(Enrolment, {"nodes": {name: {"clients": list(own)} for name, own in self.owners.items()}})

    def run(self):
        return read_run(self.table)

    def node(self, name):
        return NodeFolder(self.folder / name)

    def write_policy(self, name, **changes):
        table = OPEN | {"servers": [self.fingerprint], "bases": [base_of(self)]} | self.policy | changes
        (self.folder / name / "policy.toml").write_text(tomli_w.dumps(table))

    def write_node(self, name, **changes):
        source = {key: value for key, value in self.table["data"].items() if key != "path"}
        own = {client: source | {"path": str(self.folder / f"{client}.jsonl")} for client in self.owners[name]}
        table = {
            "name": name,
            "server": "study",
            "address": f"127.0.0.1:{self.port}",
            "model": {"path": self.table["model"]["path"]},
            "data": own,
        }
        (self.folder / name / "node.toml").write_text(tomli_w.dumps(table | changes))

    def serve(self, out, *, going_on=False, **more):
        """The events of the server's run; the nodes' files are told the port."""

        def listening(port):
            self.port = port
            for name in self.owners:
                self.write_node(name)
            ready.set()

        ready = more.pop("ready", threading.Event())
        return serve(
            None if going_on else self.run(),
            out,
            self.enrolment,
            listen=f"127.0.0.1:{self.port}",
            keys=self.server_keys,
            on_listening=listening,
            **more,
        )

    def to_the_end(self, out, *, link=None, **more):
        """Serve a run with all nodes at work in threads of this process; `link` makes a node's way to the server."""
        ready = threading.Event()
        with self.at_work(ready, link):
            return list(self.serve(out, ready=ready, **more))

    @contextlib.contextmanager
    def at_work(self, ready, link=None):
        stop = threading.Event()

        def work(name):
            ready.wait()
            try:
                Node(self.node(name), link and link(name)).run(stop)
            except FedloomError as error:
                print(f"node {name}: {error}", flush=True)  # shown where a test waits in vain

        threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in self.owners]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ready.set()
            stop.set()
            for thread in threads:
                thread.join(timeout=20)

    def supervised(self, ready, killed):
        """Threads of nodes that are started anew whenever `killed` ends one, until the run is over."""

        def work(name):
            ready.wait()
            while True:
                try:
                    return Node(self.node(name)).run()
                except killed:
                    self.deaths.append(name)

        return [threading.Thread(target=work, args=(name,), daemon=True) for name in self.owners]

    def to_the_end_with_deaths(self, out, killed):
        """Serve a run whose nodes are killed on the way; return who was."""
        ready = threading.Event()
        threads = self.supervised(ready, killed)
        for thread in threads:
            thread.start()
        list(self.serve(out, ready=ready))
        for thread in threads:
            thread.join(timeout=20)
        return self.deaths


def base_of(federation):
    if not hasattr(federation, "_base"):
        federation._base = load_model(federation.run()).model.base_id
    return federation._base


def federation(folder, owners=None, *, policy=None, **changes):
    """A federation of small clients in a folder; every node's owner has approved the run."""
    table = small_table(folder, engine="sequential", evaluation=BY_TEXT, **changes)
    owners = owners or {"north": ("client0", "client1"), "south": ("client2",), "west": ("client3",)}
    made = Federation(folder, table, owners, policy or {})
    lines = (folder / "data.jsonl").read_text().splitlines(True)
    for client in made.clients:
        (folder / f"{client}.jsonl").write_text("".join(line for line in lines if f'"{client}"' in line))
    make_keys(made)
    manifest = manifest_of(made.run(), load_model(made.run()), made.enrolment.nodes_by_client)
    for name in owners:
        made.write_policy(name)
        made.write_node(name)
        made.node(name).approve(manifest)
    return made


ASKED = {"deployment": {"evaluate": True, "deadline_s": 60.0}, "rounds": 3}
HELD = {"holdout_by": "text", "holdout": 0.4, "every": 2, "max_new_tokens": 3, "resamples": 20}


def approved_federation(folder, *, evaluation=BY_TEXT, **changes):
    """A federation whose run evaluates in its own way, approved as it is."""
    made = federation(folder, **changes)
    made.table["evaluation"] = evaluation
    manifest = manifest_of(made.run(), load_model(made.run()), made.enrolment.nodes_by_client)
    for name in made.owners:
        made.node(name).revoke_approvals()
        made.node(name).approve(manifest)
    return made


def asked_federation(folder, *, metrics=("loss", "exact_match"), **changes):
    """A federation whose nodes are asked for scores, and allow these."""
    return approved_federation(folder, evaluation=HELD, policy={"metrics": list(metrics)}, **(ASKED | changes))


def make_keys(made):
    authority = made.folder / "ca"
    k.make_authority(authority, "trial")
    home = made.folder / "server"
    home.mkdir()
    k.make_key(home / "server.key")
    text, who = k.sign_request(authority, k.make_request(home / "server.key", "server", "study"), "server")
    (home / "server.pem").write_text(text)
    made.server_keys = ServerKeys(home / "server.pem", home / "server.key", authority / "ca.pem", home / "revoked.txt")
    made.fingerprint = who.fingerprint
    for name in made.owners:
        home = made.folder / name
        home.mkdir()
        k.make_key(home / "node.key")
        text, _ = k.sign_request(authority, k.make_request(home / "node.key", "node", name), "node")
        (home / "node.pem").write_text(text)
        (home / "ca.pem").write_text((authority / "ca.pem").read_text())
