"""A Flower federation on loopback, as Flower starts it: a SuperLink, SuperNodes, and `flwr run` on a bundle of rounds.

Flower is found in an environment of its own, as it holds libraries back: `.venv-flower`, or what FLOWER_VENV names.
"""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks._common import ROOT, environment

__all__ = ["flower_rounds", "flower_venv", "flower_version"]

_BUNDLE = ROOT / "benchmarks" / "_flower_rounds"
_LONG_S = 240
_PLACE = '[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{}"\ninsecure = true\n'


def flower_venv() -> Path | None:
    """Return Flower's environment, where there is one."""
    venv = Path(os.environ.get("FLOWER_VENV") or ROOT / ".venv-flower").absolute()
    return venv if (venv / "bin" / "flower-superlink").is_file() else None


def flower_version(venv: Path) -> str:
    """Return the version of Flower in an environment."""
    (info,) = venv.glob("lib/python*/site-packages/flwr-*.dist-info")
    return info.stem.removeprefix("flwr-")


def flower_rounds(venv: Path, sizes: Mapping[str, int], *, nodes: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of so many rounds with rows of so many numbers, after one that is not counted."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, link = Path(name), _free_port()
        said = stack.enter_context((folder / "log").open("wb"))
        told = environment() | {"FLWR_HOME": name, "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        told.pop("PYTHONPATH", None)

        def wait_for(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
            end_s = time.monotonic() + _LONG_S
            while not true():
                if process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError(f"Flower stands still: {(folder / 'log').read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)

        def start(port: int, program: str, *words: str) -> subprocess.Popen[bytes]:
            command = [str(venv / "bin" / program), "--insecure", "--host", "127.0.0.1", "--port", str(port), *words]
            process = subprocess.Popen(command, cwd=folder, env=told, stdout=said, stderr=said)
            stack.callback(_end, process)
            wait_for(lambda: _listens(port), process)
            return process

        (folder / "config.toml").write_text(_PLACE.format(link), encoding="utf-8")
        superlink = start(link, "flower-superlink", "--disable-runtime-dependency-installation")
        for _ in range(nodes):
            start(_free_port(), "flower-supernode", "--superlink", f"127.0.0.1:{link}")
        for what, size in sizes.items():
            out = folder / f"{size}.json"
            config = f"size={size} rounds={rounds + 1} nodes={nodes} out='{out}'"
            command = [str(venv / "bin" / "flwr"), "run", str(_BUNDLE), "bench", "--run-config", config]
            subprocess.run(command, cwd=folder, env=told, stdout=said, check=True)
            wait_for(out.is_file, superlink)
            found[what] = json.loads(out.read_text(encoding="utf-8"))[1:]
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]
