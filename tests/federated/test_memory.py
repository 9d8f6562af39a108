"""Fifty rounds hold no more than five: tensors alive while one engine goes on, with all the state a client can have."""

import gc

import pytest
import torch

from fedloom.federated.rounds import begin, step
from fedloom.runs.prepared import prepare
from support.small_runs import small_run


def alive():
    """The storages of all tensors: bytes by address."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return len(tensors), sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """(number of tensors, bytes) alive after 5 and after 50 rounds."""
    local = {"lr": 0.01, "steps": 1, "batch": 2, "optimiser_state": "kept"}
    changes = {"rule": {"name": "scaffold"}, "server_opt": {"name": "adam"}, "local": local}
    ready = prepare(small_run(tmp_path_factory.mktemp("memory"), rounds=50, **changes))
    plan, carrier = ready.stages[0].plan, ready.run.engine.start(ready.stages[0].work)
    state, found = begin(plan, ready.layout.row({"": ready.shared})), {}
    while state.round < plan.rounds:
        state, _ = step(plan, state, carrier)
        if state.round in (5, 50):
            found[state.round] = alive()
    return found


@pytest.mark.slow
def test_as_many_tensors_live_after_fifty_rounds_as_after_five(after):
    assert after[50][0] == after[5][0]


def test_as_many_bytes_live_after_fifty_rounds_as_after_five(after):
    assert after[50][1] == after[5][1]
