"""The two halves of a Flower app whose client is `TrlClient`; a module of its own, as Flower's workers import it."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from benchmarks._common import Settings, silence
from benchmarks._shapes import Shape
from benchmarks._trainers import TrlClient

__all__ = ["Clock", "client_app", "server_app"]


@dataclass
class Clock:
    """When things happened, as read by the server half; seconds."""

    started_s: float = field(default_factory=time.perf_counter)
    first_round_s: float = 0.0
    theirs_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)
    supervised_tokens: int = 0


@functools.cache
def _client(shape: Shape, folder: Path, settings: Settings) -> TrlClient:
    """The model of one worker process, kept from message to message, which plain Flower apps do not do."""
    silence()
    return TrlClient(shape, folder, settings)


def client_app(shape: Shape, folder: Path, settings: Settings) -> ClientApp:
    """Return the client half: a message brings the shared adapter, its answer holds the client's."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = _client(shape, folder, settings)
        client.counts.clear()
        name = sorted(client.records)[int(context.node_config["partition-id"])]
        state = client.train(message.content["adapter"].to_torch_state_dict(), name)
        counted = MetricRecord({"supervised": client.counts[-1].supervised})
        return Message(content=RecordDict({"adapter": ArrayRecord(state), "counted": counted}), reply_to=message)

    return app


def server_app(
    shape: Shape, folder: Path, settings: Settings, *, rounds: int, clock: Clock, ours: Callable[[], object]
) -> ServerApp:
    """Return the server half: rounds of all clients, averaged, each followed by a round of ours in this process."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        shared = TrlClient(shape, folder, settings).state()
        nodes: list[int] = []
        while len(nodes) < shape.clients:  # the simulated nodes join one by one
            nodes = sorted(grid.get_node_ids())
            time.sleep(0.05)
        for number in range(rounds + 1):
            start_s = time.perf_counter()
            shared, clock.supervised_tokens = _round(grid, nodes, shared)
            seconds = time.perf_counter() - start_s
            if number == 0:  # the workers import and load the model
                clock.first_round_s = time.perf_counter() - clock.started_s
            else:
                clock.theirs_s.append(seconds)
            start_s = time.perf_counter()
            ours()
            if number:
                clock.ours_s.append(time.perf_counter() - start_s)

    return app


def _round(grid: Grid, nodes: list[int], shared: dict) -> tuple[dict, int]:
    messages = [
        Message(RecordDict({"adapter": ArrayRecord(shared)}), dst_node_id=node, message_type=MessageType.TRAIN)
        for node in nodes
    ]
    replies = list(grid.send_and_receive(messages))
    failed = [reply.error for reply in replies if reply.has_error()]
    if failed or len(replies) < len(nodes):
        raise RuntimeError(f"{len(replies)} replies of {len(nodes)} clients, {len(failed)} failed: {failed[:1]}")
    states = [reply.content["adapter"].to_torch_state_dict() for reply in replies]
    mean = {key: sum(state[key] for state in states) / len(states) for key in shared}
    return mean, int(sum(reply.content["counted"]["supervised"] for reply in replies))
