"""A base in bfloat16 under adapters in float32 trains as one in float32 does, to the precision of bfloat16."""

import pytest
import torch

from fedloom.runs.prepared import prepare
from support.clients import hardware_for_bfloat16
from support.small_runs import small_run, train

# bfloat16 keeps 8 bits: a number is off by up to 2^-9 = 0.2 %, a loss after two layers by a few times that.
TOLERANCE = 0.005


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(ready, last state, losses of the rounds) by the dtype of the base."""
    folder, found = tmp_path_factory.mktemp("dtypes"), {}
    for dtype in ("float32", "bfloat16"):
        model = {"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 2, "lora_alpha": 4.0, "dtype": dtype}
        run = small_run(folder, rounds=8, model=model)
        with hardware_for_bfloat16():
            ready = prepare(run)
        state, records = train(run, ready=ready)
        found[dtype] = ready, state, [record.loss.value for record in records]
    return found


def dtypes(trained, names):
    ready, _, _ = trained["bfloat16"]
    return {ready.model.module.get_parameter(name).dtype for name in names(ready)}


def test_base_weights_lie_in_bfloat16(trained):
    def base(ready):
        return [name for name, _ in ready.model.module.named_parameters() if name not in ready.model.trainable]

    assert dtypes(trained, base) == {torch.bfloat16}


def test_adapters_lie_in_float32(trained):
    assert dtypes(trained, lambda ready: ready.model.trainable) == {torch.float32}


def test_the_state_between_rounds_is_float32(trained):
    assert trained["bfloat16"][1].params_P.dtype == torch.float32


def test_the_loss_of_a_bfloat16_base_stays_near_that_of_float32(trained):
    assert trained["bfloat16"][2] == pytest.approx(trained["float32"][2], rel=TOLERANCE)


def test_the_loss_of_a_bfloat16_base_falls_by_far_more_than_the_tolerance(trained):
    losses = trained["bfloat16"][2]
    assert losses[-1] < (1 - 5 * TOLERANCE) * losses[0]


def test_a_bfloat16_base_is_not_the_float32_one(trained):
    assert trained["bfloat16"][2] != trained["float32"][2]
