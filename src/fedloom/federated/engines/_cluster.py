"""The Ray cluster that a program works with: one that is there, or a local one that nobody else can reach.

A local cluster listens on the loopback interface alone, asks for a token, and keeps token, sockets and logs in a folder
that goes with the program. Ray 2.60 itself listens on all interfaces, takes `_node_ip_address="127.0.0.1"` for the
host's own address, and puts its token into the home folder (docs/pitfalls.md); it reads most of its settings from the
environment while it is imported.
"""

import atexit
import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

from fedloom.base.errors import RunError, one_line
from fedloom.base.extras import library

__all__ = ["connected", "failures", "slots"]

_LOOPBACK = "127.0.0.1"
_ANSWER_S = 10.0
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""What keeps Ray on the loopback interface, on those systems and elsewhere."""
_JOINED: list[str] = []
"""The address that this program has joined by itself: Ray knows one cluster a process."""


def connected(address: str) -> Any:
    """Return the library `ray`, connected to the cluster at `address`; "" is a local one, started where need be.

    A connection that the program has made before is used. Raises RunError where there is no such cluster, or where the
    program is connected to another one.
    """
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    if not address and "ray" not in sys.modules:
        os.environ.update(_ALONE)
    ray = library("ray", "engine 'ray'")
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        with _no_cluster(ray, address):
            _join(ray, address) if address else _begin(ray)
        _JOINED[:] = [address]
    elif _JOINED not in ([], [address]):
        raise RunError(
            f"engine.address: found '{address}', this program is connected to '{_JOINED[0]}' already; allowed is one "
            "cluster in a program: start another one."
        )
    return ray


def slots(ray: Any, kind: str) -> int:
    """Return how many workers the cluster has room for: its CPUs or GPUs, as `kind` says."""
    return int(ray.cluster_resources().get(kind.upper(), 0))


@contextlib.contextmanager
def failures(ray: Any) -> Generator[None]:
    """Turn what Ray could not do into one clear line; what a program in an actor raised is let through as it is."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise RunError(f"engine 'ray': {_last_line(error)}; see to the cluster, then resume the run.") from error


def _join(ray: Any, address: str) -> None:
    """Join a cluster; whether anybody listens there is asked first, as Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host, int(port)), timeout=_ANSWER_S):
            pass
    ray.init(address=address, log_to_driver=False, configure_logging=False)


def _begin(ray: Any) -> None:
    """Start a local cluster; whatever Ray would listen on is looked at before it does."""
    found = ray.util.get_node_ip_address()
    if found != _LOOPBACK:
        raise RunError(
            f"engine 'ray': Ray would listen on {found}, allowed is {_LOOPBACK}: it was imported before fedloom could "
            f"tell it; set {next(iter(_ALONE))}=0 before the program starts."
        )
    folder = _own_folder()
    # Whether it is asked for is Ray's choice, which is to ask, unless RAY_AUTH_MODE forbids it.
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / "token")
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address=_LOOPBACK,
        _temp_dir=str(folder),
    )


@cache
def _own_folder() -> Path:
    """Return the folder of this program's own clusters, with their token: Ray reads it once a process."""
    folder = tempfile.TemporaryDirectory(prefix="fedloom-", ignore_cleanup_errors=True)
    atexit.register(_end, folder)
    token = Path(folder.name) / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    return Path(folder.name)


def _end(folder: "tempfile.TemporaryDirectory[str]") -> None:
    library("ray").shutdown()
    folder.cleanup()


@contextlib.contextmanager
def _no_cluster(ray: Any, address: str) -> Generator[None]:
    """Turn whatever a cluster that cannot be joined or started raises into one clear line."""
    try:
        yield
    except RunError:
        raise
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = f"engine.address: no cluster at '{address}'" if address else "engine 'ray': no local cluster"
        allowed = "allowed is what `ray start` tells, or '' for a local one"
        raise RunError(f"{what} ({_last_line(error)}); {allowed}.") from error


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[-1]).rstrip(".") if lines else type(error).__name__
