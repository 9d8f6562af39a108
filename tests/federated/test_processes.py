"""Workers give the numbers of one process, and their refusals reach the user."""

import pytest
import torch

from fedloom.base.errors import TrainingError
from support.small_runs import small_run, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.mark.slow
def test_two_workers_give_the_bits_of_one_process(folder):
    alone, _ = train(small_run(folder, engine={"name": "sequential"}))
    shared, _ = train(small_run(folder, engine={"name": "processes", "workers": 2}))
    assert torch.equal(shared.params_P, alone.params_P)


@pytest.mark.slow
def test_a_refusal_in_a_worker_names_client_and_round(folder):
    run = small_run(folder, engine={"name": "processes", "workers": 1}, local={"lr": 1e30, "steps": 2, "batch": 3})
    with pytest.raises(TrainingError, match="client 'client0', round 0, step 1: the loss is"):
        train(run)
