"""Answers of a split run's result between machines: a server that keeps sessions, a node that has answers written."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from fedloom.base.errors import ConfigError
from fedloom.network.door import serving
from fedloom.network.hub import Hub
from fedloom.network.keys import revoked
from fedloom.network.manifest import Manifest, run_at_node
from fedloom.network.node_file import NodeFolder
from fedloom.network.server import run_id, served_before, welcoming
from fedloom.network.steps import patiently
from fedloom.runs.directory import RunDirectory
from fedloom.runs.split_answers import answered, sessions_of, split_settings
from fedloom.runs.tuning import run_of
from fedloom.split.messages import Message, Tally

__all__ = ["ask_server", "serve_answers"]

_AT_ONCE = 8
"""Messages of sessions that are under way together."""


def serve_answers(
    out: Path,
    *,
    listen: str = "",
    most_tokens: int = 1 << 16,
    idle_s: float = 300.0,
    on_listening: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the middle of a run's result to the nodes that made it, until `stop` is set.

    Nodes, keys and address are those with which the run was served; sessions have room for `most_tokens` together.
    """
    before, run = served_before(out), run_of(RunDirectory.open(out))
    keys = before.keys
    hub = Hub(run_id(out, going_on=True), before.enrolment, out / "incoming", run.deployment)
    hub.sessions = sessions_of(run, out, most_tokens=most_tokens, idle_s=idle_s)
    hub.end()  # there are no rounds; a node that asks for jobs hears so
    manifest = Manifest.parsed((out / "manifest.json").read_text(encoding="utf-8"))
    welcome = welcoming(hub, manifest, keys, strict=False)
    listed = partial(revoked, keys.revoked) if keys else frozenset[str]
    identity = keys.read() if keys else None
    with serving(hub, listen or before.listen, identity, welcome, revoked=listed, relays=before.relays) as port:
        on_listening(port)
        (stop or threading.Event()).wait()


def ask_server(
    home: NodeFolder, questions: Sequence[str], *, client: str = "", adapter: Path | None, max_new_tokens: int
) -> list[str]:
    """Return a node's answers to questions, of whose text nothing leaves but states, which its ledger counts.

    The run is the one that was approved last; `client` may be left out where the node has one.
    """
    manifest = home.last_approved()
    if manifest is None or not home.is_approved(manifest.digest):
        raise ConfigError(f"{home.path}: no approved run; answers are those of a run that the node took part in.")
    file = home.file
    own = [name for name in file.data if name in manifest.clients]
    if (client and client not in own) or (not client and len(own) != 1):
        raise ConfigError(f"--client: found '{client}', allowed is one of {', '.join(own)}.")
    client = client or own[0]
    run, tally = run_at_node(manifest, file.own(client)), Tally()
    if split_settings(run).defences.noise:
        raise ConfigError("protocol.noise: found in a run; states of answers would leave without it, so none is asked.")
    with (
        closing(home.link()) as link,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):

        def exchange(messages: Sequence[Message]) -> list[Message]:
            answers = list(pool.map(partial(patiently, partial(link.exchange, "")), messages))
            tally.add([*messages, *answers])
            return answers

        found = answered(run, questions, exchange, client=client, adapter=adapter, max_new_tokens=max_new_tokens)
    told = {f"bytes_{kind}": one.n_bytes for kind, one in tally.of(client).items()}
    home.ledger.append("answered", manifest=manifest.digest, client=client, questions=len(questions), **told)
    return found
