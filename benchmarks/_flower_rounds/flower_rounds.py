"""Rounds of a Flower federation without training: a row to every node, another back, hashes checked on both sides.

Runs in Flower's own environment: nothing of fedloom is imported.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

server = ServerApp()
client = ClientApp()


def _packed(row_P: Any) -> RecordDict:
    digest = hashlib.sha256(row_P.tobytes()).hexdigest()
    return RecordDict({"row": ArrayRecord([row_P]), "told": ConfigRecord({"sha256": digest})})


def _checked(content: RecordDict) -> Any:
    (row_P,) = content.array_records["row"].to_numpy_ndarrays()
    if hashlib.sha256(row_P.tobytes()).hexdigest() != content.config_records["told"]["sha256"]:
        raise ValueError("a row is not the one that was sent")
    return row_P


@client.query()
def answer(message: Message, context: Context) -> Message:
    """Answer with a row that neither another node nor another round has: Flower sends equal bytes once."""
    row_P = np.float32(context.node_id % 1000) - _checked(message.content)
    return Message(_packed(row_P), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Write the seconds of each round; the first brings the bundle to the nodes, too."""
    size, rounds, nodes = (int(context.run_config[key]) for key in ("size", "rounds", "nodes"))
    while len(known := list(grid.get_node_ids())) < nodes:
        time.sleep(0.1)
    found_s: list[float] = []
    for number in range(rounds):
        row_P = np.linspace(-1, 1, size, dtype=np.float32) + np.float32(number)
        start_s = time.perf_counter()
        content = _packed(row_P)
        replies = list(grid.send_and_receive([Message(content, node, "query") for node in known], timeout=120))
        rows = [_checked(reply.content) for reply in replies]
        found_s.append(time.perf_counter() - start_s)
        if len(rows) != nodes or any(row.shape != row_P.shape for row in rows):
            raise RuntimeError(f"{len(rows)} of {nodes} nodes answered")
    new = Path(str(context.run_config["out"]) + ".new")
    new.write_text(json.dumps(found_s), encoding="utf-8")
    new.rename(str(context.run_config["out"]))
