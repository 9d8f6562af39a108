"""Rounds over a Flower federation: the bytes of one process, and bundles that no resident node runs."""

import pytest
import tomli_w

from fedloom.base.errors import ConfigError
from fedloom.network.flower import FlowerPlace
from support.federation import federation
from support.flower import LONG_S, SECRET, bundle, flower, wait_for
from support.resuming import adapters, logs, run_to_the_end

pytestmark = [
    pytest.mark.carriers,
    pytest.mark.timeout(4 * LONG_S),
    pytest.mark.filterwarnings("default"),  # of Flower's own imports
]


def rounds_of(folder):
    return [line for line in logs(folder)["ledger.jsonl"] if "bytes" in line]


def same(one, other):
    assert adapters(one) == adapters(other) and adapters(one)
    assert rounds_of(one) == rounds_of(other)


@pytest.fixture(scope="module")
def carrier(tmp_path_factory):
    with flower(tmp_path_factory.mktemp("flower") / "federation", ("north", "south", "west")) as made:
        yield made


def served(made, carrier, out):
    """The server of a run as a process, waiting for `flwr run`."""
    folder = made.folder
    (folder / "run.toml").write_text(tomli_w.dumps(made.table))
    nodes = {name: {"clients": list(own)} for name, own in made.owners.items()}
    (folder / "clients.toml").write_text(tomli_w.dumps({"nodes": nodes}))
    keys = made.server_keys
    words = ["--flower", f"127.0.0.1:{carrier.superlink}", "--secret", str(carrier.secret), "--out", out]
    words += ["--certificate", str(keys.certificate), "--key", str(keys.key), "--ca", str(keys.authority)]
    return carrier.start("server", "fedloom", "server", "run.toml", *words, folder=folder)


def residents(made, carrier):
    return {name: carrier.start_resident(made, name) for name in made.owners}


def carried(made, carrier, out):
    """Carry out a run by processes, as it is deployed."""
    server, nodes = served(made, carrier, out), residents(made, carrier)
    carrier.run_bundle(bundle(made.folder / f"bundle-{out}"))
    assert server.wait(timeout=LONG_S) == 0, carrier.log("server")
    assert [node.wait(timeout=LONG_S) for node in nodes.values()] == [0, 0, 0], carrier.log("node-north")


def no_secret_in(carrier):
    return not any(SECRET in path.read_bytes() for path in carrier.folder.rglob("*.log"))


def test_flower_carries_a_run_with_the_bytes_of_one_process(tmp_path, carrier):
    made = federation(tmp_path, rule="scaffold", rounds=2)
    carried(made, carrier, "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
    assert no_secret_in(carrier)


def test_flower_carries_secure_sums(tmp_path, carrier):
    secure = {"aggregator": {"name": "secure_sum", "clip": 0.5}, "weighting": "uniform"}
    made = federation(tmp_path, policy={"secure_sum": "required"}, rounds=1, **secure)
    carried(made, carrier, "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def test_flower_nodes_and_servers_that_are_killed_end_with_the_same_bytes(tmp_path, carrier):
    """SIGKILL for a node, then for the server; a new run of Flower carries the rest."""
    made = federation(tmp_path, rule="scaffold", rounds=3)
    server, nodes = served(made, carrier, "apart"), residents(made, carrier)
    carrier.run_bundle(bundle(tmp_path / "first"))
    wait_for(lambda: answers(made, "north") >= 1, [server])
    nodes["north"].kill()
    nodes["north"].wait()
    nodes["north"] = carrier.start_resident(made, "north")
    wait_for(lambda: answers(made, "south") >= 2, [server])
    server.kill()
    server.wait()
    server = carrier.start("server", "fedloom", "resume", "apart", "--quiet", folder=made.folder)
    carrier.run_bundle(bundle(tmp_path / "second"))
    assert server.wait(timeout=LONG_S) == 0, carrier.log("server")
    assert [node.wait(timeout=LONG_S) for node in nodes.values()] == [0, 0, 0]
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")


def answers(made, name):
    return len(list(made.node(name).path.glob("runs/*/answers/*/*.json")))


HOSTILE = """
from pathlib import Path
from flwr.clientapp import ClientApp
from flwr.app import Message, RecordDict

Path({proof!r}).mkdir(exist_ok=True)
(Path({proof!r}) / "imported").write_text("by whoever imports a bundle")
app = ClientApp()


@app.query()
def query(message, context):
    (Path({proof!r}) / str(context.node_id)).write_text("executed")
    return Message(RecordDict(), reply_to=message)
"""

ASKING = """
import time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {n}:
        time.sleep(0.5)
    content = RecordDict({{"config": ConfigRecord({{"code": "print(1)"}})}})
    replies = grid.send_and_receive([Message(content, node, "query") for node in nodes], timeout={long})
    said = [reply.error.reason if reply.has_error() else "executed" for reply in replies]
    Path({said!r}).write_text("\\n".join(said))
"""


def test_flower_bundles_of_strangers_are_not_executed(tmp_path, carrier):
    """A bundle whose client app writes a file: resident nodes refuse it, a default SuperNode beside them runs it."""
    made, proof, said = federation(tmp_path, rounds=1), tmp_path / "proof", tmp_path / "said"
    nodes = residents(made, carrier)
    carrier.start_supernode("default", isolation="subprocess")
    text = HOSTILE.format(proof=str(proof)), ASKING.format(n=4, long=LONG_S, said=str(said))
    place = ["--insecure", "--runtime-api-address", f"127.0.0.1:{carrier.superlink}"]
    place += ["--superexec-auth-secret-file", str(carrier.secret)]
    executor = carrier.start("executor", "flower-superexec", *place)
    try:
        carrier.run_bundle(bundle(tmp_path / "hostile", clientapp=text[0], serverapp=text[1]))
        wait_for(lambda: all(refused_by(made, name) for name in made.owners), nodes.values())
        wait_for(lambda: (proof / "imported").is_file())
        wait_for(lambda: len(list(proof.iterdir())) == 2)  # the import, and one node that has executed it
        wait_for(lambda: said.is_file() and len(said.read_text().splitlines()) == 4)
        replies = [line.split(":")[0] for line in said.read_text().splitlines()]
        assert sorted(replies) == ["executed", "refused", "refused", "refused"]
    finally:
        for process in (executor, carrier.processes["supernode-default"], *nodes.values()):
            process.terminate()
    for name in made.owners:
        (line,) = refused_by(made, name)
        assert line["reason"].startswith("it holds no frames of fedloom") and line["relayed"].startswith("Flower run ")
    assert len(list(proof.iterdir())) == 2


def refused_by(made, name):
    return [line for line in made.node(name).ledger.records() if line["kind"] == "refused"]


def test_flower_tasks_are_for_those_who_have_the_secret(tmp_path, carrier):
    from fedloom.base.errors import RunError
    from fedloom.network.flower import FlowerCalls

    other = tmp_path / "other"
    other.write_bytes(b"o" * 40)
    other.chmod(0o600)
    calls = FlowerCalls(FlowerPlace(f"127.0.0.1:{carrier.supernodes['north']}", other))
    with pytest.raises(RunError, match=r"refuses \(\d+\).*secret") as told:
        calls.take(5.0)
    calls.close()
    assert "\n" not in str(told.value)


def test_flower_of_another_version_is_refused_in_one_line(monkeypatch, tmp_path):
    from fedloom.network import flower as adapter

    monkeypatch.setattr(adapter.metadata, "version", lambda name: "1.43.0")
    with pytest.raises(ConfigError, match=r"^flower: found flwr 1\.43\.0, allowed is 1\.42\.x") as told:
        adapter._flwr("app")
    assert "\n" not in str(told.value)
