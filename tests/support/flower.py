"""A Flower federation on loopback: a SuperLink and SuperNodes as processes, resident nodes of fedloom beside them."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from support.paths import ROOT

PAGE = (ROOT / "docs" / "flower.md").read_text()
SECRET = b"a secret of the test, thirty-two bytes or more"
LONG_S = 600
"""Seconds for which anything is waited for: no test is about the speed of the machine."""
BIN = Path(sys.executable).parent


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def wait_for(true, processes=()):
    end_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end_s
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass
class Flower:
    """The processes of a federation, and what they were told."""

    folder: Path
    superlink: int = 0
    supernodes: dict = field(default_factory=dict)
    """Port by name."""
    processes: dict = field(default_factory=dict)

    @property
    def secret(self):
        return self.folder / "secret"

    def environment(self, **more):
        home = self.folder / "home"
        quiet = {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return os.environ | quiet | {"PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more

    def start(self, name, *words, folder=None, **more):
        """Start a program of this environment; what it says is in a file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]],
                cwd=folder or self.folder,
                env=self.environment(**more),
                stdout=log,
                stderr=log,
            )
        return self.processes[name]

    def start_superlink(self):
        self.secret.write_bytes(SECRET)
        self.secret.chmod(0o600)
        self.superlink = free_port()
        words = ["--insecure", "--isolation", "process", "--superexec-auth-secret-file", str(self.secret)]
        self.start("superlink", "flower-superlink", *words, "--host", "127.0.0.1", "--port", str(self.superlink))
        wait_for(lambda: listens(self.superlink), [self.processes["superlink"]])
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        place = {"address": f"127.0.0.1:{self.superlink}", "insecure": True}
        (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"default": "trial", "trial": place}}))

    def start_supernode(self, name, isolation="process"):
        port = self.supernodes[name] = free_port()
        words = ["--insecure", "--superlink", f"127.0.0.1:{self.superlink}", "--host", "127.0.0.1"]
        words += ["--port", str(port), "--isolation", isolation]
        if isolation == "process":
            words += ["--superexec-auth-secret-file", str(self.secret)]
        self.start(f"supernode-{name}", "flower-supernode", *words)
        wait_for(lambda: listens(port), [self.processes[f"supernode-{name}"]])

    def start_resident(self, made, name):
        place = ["--flower", f"127.0.0.1:{self.supernodes[name]}", "--secret", str(self.secret)]
        return self.start(f"node-{name}", "fedloom", "node", "run", str(made.node(name).path), *place)

    def run_bundle(self, folder):
        """What `flwr run` does with a bundle: it hands the bundle to the SuperLink."""
        done = subprocess.run(
            [str(BIN / "flwr"), "run", str(folder), "trial"],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def flower(folder, names):
    """A SuperLink with a SuperNode for each name, all on loopback."""
    folder.mkdir()
    made = Flower(folder)
    try:
        made.start_superlink()
        for name in names:
            made.start_supernode(name)
        yield made
    finally:
        made.stop()


def bundle(folder, **files):
    """A Flower app: the one of docs/flower.md, with no code in it, or one whose two apps are in files of its own."""
    folder.mkdir()
    table = tomllib.loads(re.findall(r"```toml bundle/pyproject.toml\n(.*?)```", PAGE, re.DOTALL)[0])
    components = table["tool"]["flwr"]["app"]["components"]
    for name, text in files.items():
        components[name] = f"{name}_of_a_stranger:app"
        (folder / f"{name}_of_a_stranger.py").write_text(text)
    (folder / "pyproject.toml").write_text(tomli_w.dumps(table))
    return folder
