"""Prints [n, n]: most adapter-sized tensors alive while a round of 250 clients, and one of 20, is under way.

The optimiser is plain SGD, which has no buffers: what is counted is copies of the adapter.
"""

import gc
import json
import sys
from pathlib import Path

import torch

from fedloom.federated.rounds import begin, step
from fedloom.runs.prepared import prepare
from support.small_runs import small_run, write_records


def alive(size):
    gc.collect()
    tensors = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.numel() >= size]
    return {x.untyped_storage().data_ptr() for x in tensors}


def peak(folder, clients):
    path = write_records(folder / f"{clients}.jsonl", clients=clients, records=1)
    run = small_run(
        folder,
        model={"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 8},
        data={"name": "file", "path": str(path), "form": "alpaca", "tags": {"client": "owner"}},
        local={"steps": 1, "batch": 1, "optimiser": "sgd"},
        evaluation={"holdout": 0.0, "metrics": []},
    )
    ready, counts = prepare(run), []
    plan, size = ready.stages[0].plan, ready.layout.size
    carrier = run.engine.start(ready.stages[0].work)

    def counted(jobs):
        for number, report in enumerate(carrier(jobs)):
            yield report
            if number % (clients // 4) == 2:
                counts.append(len(alive(size)))

    step(plan, begin(plan, ready.layout.row({"": ready.shared})), counted)
    return max(counts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    small_run(folder)  # makes the model
    print(json.dumps([peak(folder, 250), peak(folder, 20)]))
