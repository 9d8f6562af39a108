"""Gradient checkpointing: the bits of the plain pass, without what its blocks hold."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from fedloom import api
from fedloom.base import tree
from fedloom.base.errors import ConfigError
from fedloom.federated.kernels import client_gradients, example_gradients
from fedloom.models.causal_lm import CausalLM
from support.clients import TASK, examples, random_params, tiny
from support.models import model_folder
from support.resuming import adapters
from support.small_runs import small_run

LENGTHS = [[4, 17], [3], [9, 9, 2]]


def gradients(by_example, **settings):
    """The gradients of three clients, by the client or as sums of their examples' own, and the model."""
    model = tiny(**settings)
    clients = [random_params(model, "recomputing", k) for k in range(3)]
    leaves = {name: leaf.requires_grad_() for name, leaf in tree.stack(clients).items()}
    model.context.generators = tuple(torch.Generator().manual_seed(k) for k in range(3))
    parts = [examples(lengths, "recomputing", k) for k, lengths in enumerate(LENGTHS)]
    if by_example:
        return example_gradients(model, TASK, leaves, parts, torch.ones_like)[0], model
    return client_gradients(model, TASK, leaves, parts).sum_KP, model


@pytest.mark.parametrize("by_example", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_those_of_the_plain_pass_bit_for_bit(by_example, dropout):
    (found, again), (plain, model) = (
        gradients(by_example, dropout=dropout, checkpointing=checkpointing) for checkpointing in (True, False)
    )
    assert torch.equal(found, plain)
    states = [[one.get_state() for one in each.context.generators] for each in (again, model)]
    assert all(map(torch.equal, *states))  # dropout has drawn as often


def test_dropout_is_drawn_again_as_it_was_and_not_left_out():
    (dropped, _), (whole, _) = (gradients(False, dropout=dropout, checkpointing=True) for dropout in (0.3, 0.0))
    assert not torch.equal(dropped, whole)


def saved_bytes(checkpointing):
    """What a pass keeps for its gradients outside the blocks, and inside where they are not computed again."""
    kept = []
    with saved_tensors_hooks(lambda one: kept.append(one.nbytes) or one, lambda one: one):
        gradients(False, checkpointing=checkpointing, num_hidden_layers=6)
    return sum(kept)


def test_blocks_keep_their_inputs_alone():
    assert saved_bytes(checkpointing=True) < saved_bytes(checkpointing=False) / 4


def test_every_block_is_computed_twice():
    model, seen = tiny(checkpointing=True), []
    for block in model.module.model.layers:
        block.register_forward_pre_hook(lambda *_: seen.append(1))
    leaves = {name: leaf.requires_grad_() for name, leaf in tree.stack([random_params(model, "twice")]).items()}
    client_gradients(model, TASK, leaves, [examples([5, 6], "twice")])
    assert len(seen) == 2 * len(model.module.model.layers)


def test_nothing_is_computed_twice_where_no_gradient_is_wanted():
    model, seen = tiny(checkpointing=True), []
    model.module.model.layers[0].register_forward_pre_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        TASK.scores(model, random_params(model, "once"), [examples([5, 6], "once")])
    assert len(seen) == 1


def test_a_private_run_has_the_same_adapter(tmp_path):
    privacy = {"name": "gaussian", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 1e-3}
    changes = {"privacy": privacy, "weighting": "uniform"}
    made = []
    small_run(tmp_path)  # makes the model
    for checkpointing in (False, True):
        model = {"name": "causal_lm", "path": str(tmp_path / "model"), "gradient_checkpointing": checkpointing}
        folder = tmp_path / str(checkpointing)
        for _ in api.start(small_run(tmp_path, rounds=1, model=model, **changes), folder):
            pass
        made.append(adapters(folder))
    assert made[0] == made[1] != {}


@pytest.mark.parametrize(
    ("architecture", "settings"), [("gpt2", {}), ("llama", {"attention": "sdpa"}), ("llama", {"lora_rank": 0})]
)
def test_other_models_are_refused(tmp_path, architecture, settings):
    family = CausalLM(path=str(model_folder(tmp_path / "model", architecture)), gradient_checkpointing=True, **settings)
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: found true for .*, allowed for plain Llamas"):
        family.build(seed=0, device=torch.device("cpu"))


def test_the_setting_is_no_part_of_what_a_model_is():
    assert CausalLM(gradient_checkpointing=True).identity() == CausalLM().identity()
