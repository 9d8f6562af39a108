"""A federation's server: a run whose clients are elsewhere, served to the nodes that are enrolled.

The run directory is that of every run. Beside it lie `deployment.json`, which names the run to its nodes, and
`manifest.json`, what they are asked for; `status.json` says at every moment whom the run waits for.

Nodes dial in (`channel.py`), or a Flower federation carries what both sides say (`relay_server.py`, `flower.py`).
"""

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import ConfigError, RunError
from fedloom.base.files import write_atomic
from fedloom.contracts.federated import Report
from fedloom.network.door import Welcome, serving
from fedloom.network.enrolment import Enrolment
from fedloom.network.flower import FlowerPlace, serverapp_task
from fedloom.network.frames import PROTOCOL, Frame, text_in
from fedloom.network.hub import Hub
from fedloom.network.keys import Keys, check, read_private, revoked, sign_bytes
from fedloom.network.manifest import Manifest, manifest_of
from fedloom.network.relay_server import RelayServer
from fedloom.network.remote import Remote, RemoteSplit
from fedloom.network.scoring import score_names
from fedloom.network.scraped import scraped
from fedloom.runs.arrangements.split import Split
from fedloom.runs.directory import DEPLOYMENT, RunDirectory
from fedloom.runs.execute import Elsewhere, Event
from fedloom.runs.prepared import load_model
from fedloom.runs.tuning import TuningRun, run_of

__all__ = ["Served", "ServerKeys", "read_status", "run_id", "serve", "serve_again", "served_before", "welcoming"]

_log = logging.getLogger(__name__)
_MANIFEST, _STATUS = "manifest.json", "status.json"
_LAST_WORD_S, _RELAYED_S = 5.0, 60.0
"""Seconds for which nodes are waited for at the end, that each hears of it: those that dial in, and through a relay."""


@dataclass(frozen=True)
class ServerKeys:
    """The files of a server's identity."""

    certificate: Path
    key: Path
    authority: Path
    revoked: Path | None = None

    def read(self) -> Keys:
        """Return them; ConfigError where they are not valid, or others may read the key."""
        certificate, authority = (path.read_text(encoding="utf-8") for path in (self.certificate, self.authority))
        check(certificate, authority, "server")
        return Keys(certificate, read_private(self.key), authority)


def serve(
    run: TuningRun | None,
    out: Path,
    enrolment: Enrolment,
    *,
    listen: str,
    keys: ServerKeys | None,
    relays: Sequence[str] = (),
    flower: FlowerPlace | None = None,
    metrics: str = "",
    stopping: threading.Event | None = None,
    drain_s: float = 60.0,
    source: str = "",
    on_report: Callable[[Report], None] = lambda _: None,
    on_listening: Callable[[int], None] = lambda _: None,
) -> Iterator[Event]:
    """Carry out a run with the enrolled nodes, or go on with the one in `out`, and yield its events.

    `relays` are names of what may end TLS before the server and carry sealed calls; `on_listening` is told the port, or
    0 where `flower` names a SuperLink that carries the run. Nodes may come and go; the run waits for them as its
    `deployment` says. At `metrics`, a loopback address, it tells how it does. Once `stopping` is set no round is opened
    any more, and the open one has `drain_s` to end: Drained.
    """
    going_on, identity = run is None, keys.read() if keys else None
    run = run_of(RunDirectory.open(out)) if run is None else run
    if run.aggregator.sum_only and identity is None:
        raise ConfigError("certificate: missing; in a secure sum clients know each other by certificates alone.")
    if run.protocol.splits:
        _refuse_split(flower)
    manifest = manifest_of(run, load_model(run), enrolment.nodes_by_client)
    hub = Hub(run_id(out, going_on), enrolment, out / "incoming", run.deployment)
    hub.authority = identity.authority if identity else ""
    hub.stopping, hub.drain_s = stopping or hub.stopping, drain_s
    welcome = welcoming(hub, manifest, keys, strict=run.deployment.strict)
    with (
        scraped(metrics, lambda: hub.meters.text(hub.gauges()), lambda: hub.state),
        _door(hub, listen, keys, identity, relays, flower, welcome) as port,
    ):
        hub.listening = True
        on_listening(port)
        address = f"{listen.rpartition(':')[0]}:{port}"
        remote = _remote(hub, run, out)
        ask = partial(remote.ask, score_names(run)) if run.deployment.evaluate else None
        files = _files(hub.run, manifest, address, enrolment, keys, relays, flower, metrics=metrics, drain_s=drain_s)
        elsewhere = Elsewhere(enrolment.clients, remote, ask, files)
        if going_on:
            _, events = api.resume(out, on_report=on_report, elsewhere=elsewhere)
        else:
            events = api.start(run, out, source=source, on_report=on_report, elsewhere=elsewhere)
        hub.watch = lambda status: write_atomic(out / _STATUS, json.dumps(status, indent=1))
        with contextlib.closing(events):
            for event in events:
                yield event
                hub.refuse_drained()  # between events everything is on the disk
        hub.end()
        hub.drained(timeout_s=_RELAYED_S if flower else _LAST_WORD_S)


def _remote(hub: Hub, run: TuningRun, out: Path) -> Remote:
    """Return what carries a run's jobs to its nodes."""
    if isinstance(run.protocol, Split):
        return RemoteSplit(hub, run.protocol.settings, out / "steps")
    return Remote(hub)


def _refuse_split(flower: FlowerPlace | None) -> None:
    """Refuse a way on which the steps of a split model cannot be made: ConfigError."""
    if flower is not None:
        raise ConfigError(
            "protocol: found 'split' over Flower, which hands messages on every few seconds; let nodes dial in."
        )


@contextlib.contextmanager
def _door(
    hub: Hub,
    listen: str,
    keys: ServerKeys | None,
    identity: Keys | None,
    relays: Sequence[str],
    flower: FlowerPlace | None,
    welcome: Welcome,
) -> Generator[int]:
    """Let nodes in while the block runs, and give the port at which they dial in, 0 where Flower carries the run."""

    def listed() -> frozenset[str]:
        return revoked(keys.revoked) if keys else frozenset()

    if flower is None:
        with serving(hub, listen, identity, welcome, revoked=listed, relays=relays) as port:
            yield port
        return
    if hub.settings.sealed or relays:
        raise ConfigError(
            "deployment.sealed: found over Flower, whose envelopes are signed and not sealed; let nodes dial in."
        )
    if keys is None or identity is None:
        raise ConfigError(
            "certificate: missing; over Flower node and server know each other by certificates alone: give "
            "--certificate, --key and --ca."
        )
    sign = partial(sign_bytes, keys.key)
    with serverapp_task(flower) as post, RelayServer(hub, post, identity, sign, welcome, revoked=listed):
        yield 0


def run_id(out: Path, going_on: bool) -> str:
    """Return what names a run to its nodes: drawn once, and kept with the run."""
    if not going_on:
        return os.urandom(16).hex()
    try:
        return str(json.loads((out / DEPLOYMENT).read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{out / DEPLOYMENT}: missing or damaged; it names the run to its nodes, which would take another one for "
            "a new run: restore it, or start a new run."
        ) from error


def _files(
    run: str,
    manifest: Manifest,
    address: str,
    enrolment: Enrolment,
    keys: ServerKeys | None,
    relays: Sequence[str],
    flower: FlowerPlace | None,
    **told_too: str | float,
) -> dict[str, str]:
    """Return what going on with the run needs: its name, the nodes, and where keys lie, never a key or a secret."""
    told: dict[str, Any] = {"run": run, "manifest": manifest.digest, "listen": address, "keys": _places(keys)}
    told |= {"relays": list(relays), **told_too}
    if flower:
        told["flower"] = {"address": flower.address} | (_places(flower) or {})
    return {
        DEPLOYMENT: json.dumps(told | {"enrolment": config.table_of(enrolment)}, indent=1),
        _MANIFEST: manifest.text,
    }


def _places(record: ServerKeys | FlowerPlace | None) -> dict[str, str] | None:
    """Return the files that a record names, from the root on."""
    if record is None:
        return None
    return {name: str(path.resolve()) for name, path in vars(record).items() if isinstance(path, Path)}


def serve_again(
    out: Path,
    *,
    listen: str = "",
    stopping: threading.Event | None = None,
    on_report: Callable[[Report], None] = lambda _: None,
    on_listening: Callable[[int], None] = lambda _: None,
) -> Iterator[Event]:
    """Go on with a run whose clients are elsewhere, as it was served before, or at another address."""
    before = served_before(out)
    yield from serve(
        None,
        out,
        before.enrolment,
        listen=listen or before.listen,
        keys=before.keys,
        relays=before.relays,
        flower=before.flower,
        metrics=before.metrics,
        stopping=stopping,
        drain_s=before.drain_s,
        on_report=on_report,
        on_listening=on_listening,
    )


@dataclass(frozen=True)
class Served:
    """With what a run was served."""

    enrolment: Enrolment
    listen: str
    keys: ServerKeys | None
    relays: tuple[str, ...]
    flower: FlowerPlace | None
    metrics: str
    drain_s: float


def served_before(out: Path) -> Served:
    """Return with what a run was served; RunError where its directory does not say."""
    told = RunDirectory.open(out).table(DEPLOYMENT)
    try:
        return Served(
            enrolment=config.build(Enrolment, told["enrolment"]),
            listen=str(told["listen"]),
            keys=ServerKeys(**{name: Path(path) for name, path in told["keys"].items()}) if told["keys"] else None,
            relays=tuple(map(str, told.get("relays", []))),
            flower=_flower_from(told["flower"]) if told.get("flower") else None,
            metrics=str(told.get("metrics", "")),
            drain_s=float(told.get("drain_s", 60.0)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{out / DEPLOYMENT}: is not what fedloom wrote ({error!r}); restore it from a copy.") from error


def _flower_from(told: Mapping[str, str]) -> FlowerPlace:
    return FlowerPlace(told["address"], Path(told["secret"]), Path(told["root"]) if "root" in told else None)


def welcoming(hub: Hub, manifest: Manifest, keys: ServerKeys | None, *, strict: bool) -> Welcome:
    """Return what answers a node's hello: who the server is, signed, and what it wants."""
    certificate = keys.certificate.read_text(encoding="utf-8") if keys else ""
    first: list[Mapping[str, Any]] = []

    def welcome(node: str, hello: Mapping[str, Any]) -> Frame:
        if hello.get("protocol") != PROTOCOL:
            raise ConfigError(
                f"protocol: the node's is {hello.get('protocol')!r}, the server's {PROTOCOL}; update one."
            )
        named, own = hello.get("clients"), hub.enrolment.nodes[node].clients
        if not isinstance(named, list) or not set(own) <= set(map(str, named)):  # pyright: ignore[reportUnknownArgumentType]
            raise ConfigError(f"node '{node}': is enrolled with {', '.join(own)}, its node.toml has not all of them.")
        machine = hello.get("machine")
        if strict and isinstance(machine, dict):
            first.append(machine)  # pyright: ignore[reportUnknownArgumentType]
            if machine != first[0]:
                odd = sorted(key for key in first[0] if machine.get(key) != first[0][key])  # pyright: ignore[reportUnknownMemberType]
                raise ConfigError(f"deployment.strict: node '{node}' differs from the first one in {', '.join(odd)}.")
        said = f"{text_in(hello, 'nonce', longest=64)} {hub.run} {manifest.digest}".encode()
        signature = sign_bytes(keys.key, said).hex() if keys else ""
        header = {"kind": "welcome", "run": hub.run, "certificate": certificate, "signature": signature}
        return Frame(header, manifest.text.encode())

    return welcome


def read_status(out: Path) -> dict[str, Any]:
    """Return whom a run waits for, as its server has written it last."""
    path = RunDirectory.open(out).path / _STATUS
    if not path.is_file():
        raise RunError(f"{path}: missing; the run was not served, or has not opened a round.")
    return RunDirectory.open(out).table(_STATUS)
