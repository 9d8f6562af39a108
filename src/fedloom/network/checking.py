"""What a node's owner checks before it lets the node run: one line each, and whether it is as it must be."""

import datetime as dt
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fedloom.base.errors import FedloomError, RunError
from fedloom.network.hands import Hands
from fedloom.network.keys import identity_of
from fedloom.network.manifest import Manifest
from fedloom.network.node_file import NodeFolder
from fedloom.network.policy import FORBIDDING

__all__ = ["Checked", "checks"]

_ROOM_BYTES = 1 << 30


@dataclass(frozen=True)
class Checked:
    """One check."""

    what: str
    fits: bool
    told: str


def checks(folder: NodeFolder) -> Iterator[Checked]:
    """Yield what was found of files, keys, clock, disk, data and the server."""
    for what, ask in (
        ("node.toml", lambda: f"node '{folder.file.name}' with {', '.join(folder.file.data)}"),
        ("policy.toml", lambda: _policy(folder)),
        ("certificate", lambda: _certificate(folder)),
        ("disk", lambda: _disk(folder)),
        ("data", lambda: _data(folder)),
        ("dry round", lambda: _dry_round(folder)),
        ("ledger", lambda: f"{len(folder.ledger.records())} lines, the chain is whole"),
        ("server", lambda: _server(folder)),
    ):
        yield _checked(what, ask)


def _checked(what: str, ask: Callable[[], str]) -> Checked:
    try:
        return Checked(what, True, ask())
    except FedloomError as error:
        return Checked(what, False, str(error))


def _policy(folder: NodeFolder) -> str:
    text = (folder.path / "policy.toml").read_text(encoding="utf-8") if (folder.path / "policy.toml").is_file() else ""
    policy = folder.policy
    return "forbids everything still" if text == FORBIDDING else f"names {len(policy.servers)} servers"


def _certificate(folder: NodeFolder) -> str:
    keys = folder.keys()
    if keys is None:
        return "none: allowed on loopback"
    left = identity_of(keys.certificate).not_after - dt.datetime.now(dt.UTC)
    return f"valid for {left.days} days more; the clock lies between its dates"


def _disk(folder: NodeFolder) -> str:
    free = shutil.disk_usage(folder.path).free
    if free < _ROOM_BYTES:
        raise RunError(f"{free:,} bytes are free, {_ROOM_BYTES:,} should be: journals keep every answer.")
    return f"{free / 2**30:.1f} GiB are free"


def _data(folder: NodeFolder) -> str:
    counts = {client: sum(map(len, source.load().values())) for client, source in folder.file.data.items()}
    return ", ".join(f"{client}: {n} records" for client, n in counts.items())


def _dry_round(folder: NodeFolder) -> str:
    """Train a round as the newest manifest asks for, from the run's start; nothing is kept, and nothing leaves."""
    newest = [*folder.waiting()[-1:]]
    manifest = Manifest.parsed(newest[0].read_text(encoding="utf-8")) if newest else folder.last_approved()
    if manifest is None:
        return "no run has asked for this node yet"
    start_s, hands = time.monotonic(), Hands(folder)
    if hands.step_bytes(manifest):
        return "data and this node's parts of the model are loaded; a step needs the server's part as well"
    steps = hands.dry_round(manifest)
    return f"{steps} steps in {time.monotonic() - start_s:.1f} s; nothing was kept"


def _server(folder: NodeFolder) -> str:
    link = folder.link()
    try:
        return f"{link.where} answers: {link.ping()}"
    finally:
        link.close()
