"""Private training written out by hand gives the framework's numbers."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fedloom import api
from fedloom.runs.tuning import read_run
from support.paths import ROOT


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The adapter by hand, what the example printed, and the run directory of the framework."""
    folder, patch = tmp_path_factory.mktemp("dp") / "run", pytest.MonkeyPatch()
    patch.syspath_prepend(str(ROOT / "examples"))
    import dp_by_hand as example

    printed = []
    patch.setattr("builtins.print", printed.append)
    by_hand = example.train()
    patch.undo()
    settings = {
        key: vars(example.LOCAL)[key]
        for key in ("lr", "steps", "batch", "optimiser", "clip_norm", "tokens_per_example")
    }
    privacy = {key: vars(example.PRIVACY)[key] for key in ("epsilon", "noise_multiplier", "clip", "delta")}
    world = {"name": "world", "seed": example.SEED, "n_clients": example.CLIENTS, "records": example.RECORDS}
    table = {
        "seed": example.SEED,
        "rounds": example.ROUNDS,
        "weighting": "uniform",
        "train": "lora_B",
        "model": {"name": "causal_lm", "lora_rank": 4},
        "data": world,
        "local": settings,
        "privacy": {"name": "gaussian", **privacy},
        "engine": {"name": "sequential"},
        "evaluation": {"metrics": [], "limit": 1},
    }
    for _ in api.start(read_run(table), folder):
        pass
    return by_hand, printed, folder


def test_private_training_by_hand_equals_the_framework(both):
    by_hand, _, folder = both
    ours = load_file(folder / "checkpoints/round_00003/params.safetensors")
    assert ours.keys() == by_hand.keys()
    for name, value in by_hand.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()))


def test_epsilon_by_hand_is_that_of_the_ledger(both):
    _, printed, folder = both
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    spent = {line["client"]: line for line in lines if "epsilon" in line}.values()  # the account at the end
    assert printed[-2:] == [
        f"client {line['client']}: epsilon {line['epsilon']['pld']:.3f} at delta {line['delta']:.3f}" for line in spent
    ]
