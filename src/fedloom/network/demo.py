"""A federation on one machine, from nothing: an authority, a server and three nodes as processes, a private tuning with
secure sums, a node killed on the way, and the proof that the adapter is that of the same run in one process.

Everything lies in one folder and may be looked at: keys, policies, the page that each owner would sign, ledgers. Noise
comes from the run's seed here, for otherwise no second run could have the same bytes; policies of real nodes refuse it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import RunError
from fedloom.base.extras import require
from fedloom.base.files import file_sha256, refuse_filled, write_atomic
from fedloom.base.plugin import lookup
from fedloom.contracts.data import Source
from fedloom.contracts.examples import Chat
from fedloom.network import keys
from fedloom.network.manifest import manifest_of
from fedloom.network.node_file import NodeFolder
from fedloom.network.review import review
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import execute, run_files
from fedloom.runs.prepared import load_model
from fedloom.runs.tuning import TuningRun

__all__ = ["demonstrated"]

_NODES = {"north": ("c00", "c01"), "south": ("c02", "c03"), "west": ("c04", "c05")}
_ADAPTER = "adapter_model.safetensors"
_LONGEST_S = 900.0
_RUN: Mapping[str, Any] = {
    "rounds": 4,
    "min_clients": 4,
    "weighting": "uniform",
    "local": {"lr": 3e-2, "steps": 2, "batch": 8},
    "aggregator": {"name": "secure_sum", "clip": 0.25},
    "privacy": {
        "name": "gaussian",
        "unit": "example",
        "clip": 1.0,
        "noise_multiplier": 0.8,
        "epsilon": 0.0,
        "delta": 1e-3,
    },
    "evaluation": {"holdout": 0.0, "metrics": []},
    "deployment": {"deadline_s": 60.0},
    "engine": "sequential",
}
_POLICY: Mapping[str, Any] = {
    "rules": ["plain"],
    "tasks": ["sft"],
    "codecs": ["float32"],
    "max_rounds": 10,
    "max_steps": 4,
    "max_batch": 16,
    "max_length": 512,
    "max_bytes_up": 2_000_000,
    "max_change": 50.0,
    "min_clients_per_round": 4,
    "min_examples": 10,
    "secure_sum": "required",
    "hours": "00-24",
    "privacy": {"unit": "example", "max_epsilon": 50.0, "seeded_noise": True},
}


@dataclass
class _Demo:
    """The folder of a demonstration."""

    folder: Path
    port: int

    def run_table(self, data: str) -> dict[str, Any]:
        """Return the run file's table, with its data in a file."""
        return {**_RUN, "data": _source(data)}


def demonstrated(folder: Path) -> Iterator[str]:
    """Yield what happens, a line each, and at last the proof; RunError where it does not come about."""
    require("demo network", "grpc", "cryptography", "dp_accounting")
    refuse_filled(folder, "choose another --out")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    demo = _Demo(folder, _free_port())
    yield from _made(demo)
    yield from _carried_out(demo)
    yield from _proven(demo)


# ------------------------------------------------------------------------------------------------------------- files


def _made(demo: _Demo) -> Iterator[str]:
    home = demo.folder
    _write_records(home)
    keys.make_authority(home / "authority", "demonstration")
    yield f"made an authority: {home / 'authority'}"
    fingerprint = _server_identity(home)
    write_atomic(home / "run.toml", tomli_w.dumps(demo.run_table("nowhere.jsonl")))
    nodes = {name: {"clients": list(own)} for name, own in _NODES.items()}
    write_atomic(home / "clients.toml", tomli_w.dumps({"nodes": nodes}))
    run = api.load_run(home / "run.toml")
    loaded = load_model(run)
    held = {client: name for name, own in _NODES.items() for client in own}
    manifest = manifest_of(run, loaded, held)
    for name in _NODES:
        _make_node(demo, name, fingerprint, loaded.model.base_id)
    north = NodeFolder(home / "north")
    north.wait_for_approval(manifest)
    yield "what the owner of north reads before it signs (`fedloom node review north`):"
    yield from (f"    {line}" for line in review(north, manifest))
    for name in _NODES:
        NodeFolder(home / name).approve(manifest)
        yield f"{name} has approved the run: {home / name / 'approved'}"


def _write_records(home: Path) -> None:
    """Write each client's records, and those of all for the run in one process that comes last."""
    whole: list[str] = []
    for client in (one for own in _NODES.values() for one in own):
        lines: list[str] = []
        for example in lookup(Source, "world")().load()["train"]:
            if isinstance(example, Chat) and example.tags.get("client") == client and len(example.turns) == 2:
                question, answer = (turn.text for turn in example.turns)
                lines.append(json.dumps({"instruction": question, "output": answer, "owner": client}) + "\n")
        whole += lines
        write_atomic(home / f"{client}.jsonl", "".join(lines))
    write_atomic(home / "all.jsonl", "".join(whole))


def _source(path: str) -> dict[str, Any]:
    return {"name": "file", "path": path, "form": "alpaca", "tags": {"client": "owner"}}


def _server_identity(home: Path) -> str:
    """Make the server's key and certificate; return the certificate's fingerprint."""
    (home / "server").mkdir()
    keys.make_key(home / "server" / "server.key")
    request = keys.make_request(home / "server" / "server.key", "server", "study")
    text, who = keys.sign_request(home / "authority", request, "server")
    write_atomic(home / "server" / "server.pem", text)
    return who.fingerprint


def _make_node(demo: _Demo, name: str, server: str, base: str) -> None:
    home = demo.folder / name
    home.mkdir(mode=0o700)
    keys.make_key(home / "node.key")
    request = keys.make_request(home / "node.key", "node", name)
    text, _ = keys.sign_request(demo.folder / "authority", request, "node")
    write_atomic(home / "node.pem", text)
    write_atomic(home / "ca.pem", (demo.folder / "authority" / "ca.pem").read_text(encoding="utf-8"))
    data = {client: _source(str(demo.folder / f"{client}.jsonl")) for client in _NODES[name]}
    settings = {"name": name, "server": "study", "address": f"127.0.0.1:{demo.port}", "data": data}
    write_atomic(home / "node.toml", tomli_w.dumps(settings))
    write_atomic(home / "policy.toml", tomli_w.dumps({**_POLICY, "servers": [server], "bases": [base]}))


# --------------------------------------------------------------------------------------------------------- processes


def _carried_out(demo: _Demo) -> Iterator[str]:
    server = ["server", "run.toml", "--listen", f"127.0.0.1:{demo.port}", "--out", "apart", "--quiet"]
    server += ["--certificate", "server/server.pem", "--key", "server/server.key", "--ca", "authority/ca.pem"]
    processes = {name: _started(demo, "node", "run", name) for name in _NODES}
    processes["server"] = _started(demo, *server)
    end_s = time.monotonic() + _LONGEST_S
    yield f"a server and three nodes are at work on 127.0.0.1:{demo.port}, certificates on both sides"
    try:
        _wait(lambda: _answers(demo, "north") >= 2, processes, end_s)
        processes["north"].send_signal(signal.SIGKILL)
        processes["north"].wait()
        yield f"killed node north (SIGKILL) after {_answers(demo, 'north')} answers"
        processes["north"] = _started(demo, "node", "run", "north")
        yield "started node north again: what it has answered it answers from its journal"
        _wait(lambda: processes["server"].poll() is not None, processes, end_s)
    finally:
        for process in processes.values():
            if process.poll() is None and processes["server"].poll() != 0:
                process.kill()
    for name, process in processes.items():
        if process.wait(timeout=30):
            raise RunError(f"{demo.folder / name}.log: {name} has failed; its message is the last line there.")
    yield "all four have ended well"


def _started(demo: _Demo, *words: str) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (demo.folder / f"{words[-1] if words[0] == 'node' else words[0]}.log").open("ab") as log:
        command = [sys.executable, "-m", "fedloom", *words]
        return subprocess.Popen(command, cwd=demo.folder, env=environment, stdout=log, stderr=log)


def _wait(done: Callable[[], bool], processes: "Mapping[str, subprocess.Popen[bytes]]", end_s: float) -> None:
    while not done():
        if time.monotonic() > end_s:
            raise RunError(f"demo: not over after {_LONGEST_S:.0f} s; this machine is too busy, or something is amiss.")
        if any(process.poll() not in (None, 0) for process in processes.values()):
            raise RunError("demo: a process has failed; its message is the last line of its .log in the folder.")
        time.sleep(0.05)


def _answers(demo: _Demo, name: str) -> int:
    return len([*(demo.folder / name / "runs").glob("*/answers/*/*.json")])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# -------------------------------------------------------------------------------------------------------------- proof


def _proven(demo: _Demo) -> Iterator[str]:
    """Run the same file in one process and compare what came out."""
    yield "the same run in one process, with all records in one file:"
    run = config.build(TuningRun, demo.run_table(str(demo.folder / "all.jsonl")))
    absent = _absences(demo)
    directory = RunDirectory.create(demo.folder / "one_place", run_files(run, ""))
    for _ in execute(run, directory, absent=absent):
        pass
    one, other = (file_sha256(demo.folder / name / "adapter" / _ADAPTER) for name in ("apart", "one_place"))
    yield f"    apart      adapter sha256 {one}"
    yield f"    one place  adapter sha256 {other}"
    if one != other:
        raise RunError(f"{demo.folder}: the adapters differ, which they must not.")
    missing = sum(map(len, absent.values()))
    yield f"PROVEN: equal, byte for byte{f'; {missing} lost reports were left out of both' if missing else ''}"
    for name in _NODES:
        records = NodeFolder(demo.folder / name).ledger.records()
        masked = sum(line["bytes"] for line in records if line["kind"] == "masked row")
        spent = max((line["epsilon"] for line in records if "epsilon" in line), default=0.0)
        yield f"{name}: {masked:,} bytes left under masks, epsilon {spent:.2f}; `fedloom node ledger {name}`"


def _absences(demo: _Demo) -> dict[int, Sequence[str]]:
    """Return who was lost in which round, as the run's ledger has it."""
    found: dict[int, list[str]] = {}
    for line in (demo.folder / "apart" / "ledger.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if str(record.get("what", "")).startswith("nothing"):
            found.setdefault(record["round"], []).append(record["client"])
    return {round: tuple(clients) for round, clients in found.items()}
