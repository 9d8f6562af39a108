"""The operator's page, from start to end, by its own words."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.command import fedloom
from support.paths import ROOT

pytestmark = pytest.mark.timeout(900)
PAGE = (ROOT / "docs" / "hospital.md").read_text()
BLOCK = re.compile(r"```(bash|toml) ?([\w./]*)\n(.*?)```", re.DOTALL)
FEDLOOM = [sys.executable, "-m", "fedloom"]


def run(folder, words, **more):
    return subprocess.run([*FEDLOOM, *words], cwd=folder, capture_output=True, text=True, check=False, **more)


def until(true, process, at_most_s=600):
    end = time.monotonic() + at_most_s
    while not true():
        assert time.monotonic() < end and process.poll() in (None, 0)
        time.sleep(0.1)


@pytest.mark.slow
def test_the_page_runs_from_start_to_end(tmp_path):
    records = [{"instruction": f"say {n}", "output": f"{n} it is"} for n in range(40)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    port = free_port()
    known, running, said = {"7443": str(port)}, {}, {}
    for kind, name, text in BLOCK.findall(PAGE):
        for word, value in known.items():
            text = text.replace(word, value)
        if kind == "toml":
            (tmp_path / name).write_text(text)
            continue
        for line in text.splitlines():
            words = line.split()
            if words[0] == "cp":
                (tmp_path / words[2]).write_text((tmp_path / words[1]).read_text())
                continue
            assert words[0] == "fedloom"
            if words[1] == "server" or words[1:3] == ["node", "run"]:
                running[words[1]] = subprocess.Popen([*FEDLOOM, *words[1:]], cwd=tmp_path)
                if words[1] == "node":
                    until(lambda: list(tmp_path.glob("north/waiting/*.json")), running["node"])
                continue
            if words[1:3] == ["node", "ledger"]:  # the page reads it when the run is over
                assert running["server"].wait(timeout=600) == 0 and running["node"].wait(timeout=600) == 0
            done = run(tmp_path, words[1:])
            expected = 1 if words[2] == "check" else 0  # the server is not there yet
            assert done.returncode == expected, done.stderr
            assert "Traceback" not in done.stderr
            said[" ".join(words[1:3])] = done.stdout
            if words[1] == "keys" and "--server" in words:
                known["FINGERPRINT"] = re.search("fingerprint ([0-9a-f]{64})", done.stdout)[1]
                known["BASE"] = base_id()
    check = said["node check"].splitlines()
    assert [line.split(":")[0] for line in check if line.startswith("NO")] == ["NO  server"]
    assert "40 examples are trained on; none of them leaves" in said["node review"]
    assert "epsilon" in said["node review"] and "allows it" in said["node review"]
    assert len(re.findall("  report  ", said["node ledger"])) == 2 and "the chain is whole" in said["node ledger"]
    assert "the run is over" in said["status study"]
    shown = run(tmp_path, ["show", "study"])
    assert shown.returncode == 0 and "epsilon" not in shown.stdout, shown.stderr
    assert (tmp_path / "study" / "adapter").is_dir() and not list(tmp_path.glob("north/runs/*/answers"))
    server = (tmp_path / "study" / "ledger.jsonl").read_text() + (tmp_path / "study" / "partition.json").read_text()
    assert "40" not in re.findall(r"\b\d+\b", server)  # nothing at the server tells how many records there are


def base_id():
    from fedloom import api
    from fedloom.runs.prepared import load_model

    return load_model(api.load_run(ROOT / "experiments" / "quickstart.toml")).model.base_id


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_every_command_of_the_node_is_on_the_page():
    from fedloom.cli.node import node

    names = {command.name for command in node.registered_commands}
    assert names == {name for name in names if f"fedloom node {name}" in PAGE}


@pytest.mark.slow
def test_the_demonstration_ends_with_its_proof(tmp_path):
    done = run(tmp_path, ["demo", "network", "--out", "federation"], timeout=850)
    assert done.returncode == 0, done.stderr
    assert "PROVEN: equal, byte for byte" in done.stdout and "killed node north" in done.stdout
    assert Path(tmp_path / "federation" / "north" / "ledger.jsonl").is_file()


WRONG = {
    "a folder that is no node's": (["node", "run", "nowhere"], "nowhere: no node's folder"),
    "half of the keys": (["server", "run.toml", "--ca", "ca.pem"], "certificate, key and ca: found some of the three"),
    "no enrolment": (["server", "run.toml"], "clients.toml: no such TOML file"),
    "no request": (["keys", "sign", "ca", "none.csr", "--out", "x.pem"], "none.csr: no such request"),
    "an open door": (
        ["server", "run.toml", "--enrolled", "two.toml", "--listen", "0.0.0.0:0"],
        "without certificates, allowed is a loopback address",
    ),
    "status of no run": (["status", "nowhere"], "nowhere: no run directory"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, wrong, monkeypatch, capsys):
    words, text = WRONG[wrong]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text("rounds = 1\nevaluation.holdout = 0.0\n")
    (tmp_path / "two.toml").write_text('[nodes.a]\nclients = ["a"]\n')
    assert fedloom(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert text in said and len(said.strip().splitlines()) == 1 and not (tmp_path / "runs").exists()
