"""A run that takes a moment: a random two-layer model, a few clients, short texts; everything made on the spot."""

import json
import random

from fedloom.base import config
from fedloom.federated.rounds import begin, step
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import TuningRun, read_run
from support.models import model_folder


def write_records(path, *, clients=4, records=6, seed=0):
    """A JSON Lines file in Alpaca columns; clients own unequal numbers of records and words of their own."""
    draw = random.Random(seed)
    lines = []
    for client in range(clients):
        for _ in range(records + client % 4):
            word = 3 + (7 * client + draw.randrange(12)) % 60
            question = " ".join(f"w{draw.randrange(3, 63)}" for _ in range(draw.randrange(2, 6)))
            answer = " ".join([f"w{word}"] * draw.randrange(1, 4))
            lines.append(
                {"instruction": question, "output": answer, "owner": f"client{client}", "kind": f"k{word % 3}"}
            )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def small_table(folder, **changes):
    """The table of a small run; `changes` replace whole entries."""
    if not (folder / "model").exists():
        model_folder(folder / "model")
        write_records(folder / "data.jsonl")
    table = {
        "rounds": 3,
        "seed": 1,
        "model": {"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 2, "lora_alpha": 4.0},
        "task": {"name": "sft", "max_length": 60, "template": {"name": "vicuna"}},
        "data": {
            "name": "file",
            "path": str(folder / "data.jsonl"),
            "form": "alpaca",
            "tags": {"client": "owner", "domain": "kind"},
        },
        "local": {"lr": 0.02, "steps": 2, "batch": 3},
        "evaluation": {"max_new_tokens": 3, "resamples": 20},
    }
    return table | changes


def small_run(folder, **changes) -> TuningRun:
    return read_run(small_table(folder, **changes))


def write_run_file(folder, **changes):
    path = folder / "run.toml"
    path.write_text(config.tomli_w.dumps(small_table(folder, **changes)))
    return path


def train(run, *, rounds=None, state=None, ready=None):
    """Train the first stage in memory; returns (last state, records)."""
    ready = ready or prepare(run)
    plan, carrier = ready.stages[0].plan, run.engine.start(ready.stages[0].work)
    state = state or begin(plan, ready.layout.row({"": ready.shared}))
    records = []
    for _ in range(rounds or run.rounds):
        state, record = step(plan, state, carrier)
        records.append(record)
    return state, records
