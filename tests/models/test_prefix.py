"""Prefixes: peft's prefix tuning as an oracle, packed and stacked, in generation, on disk, and what is refused."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from fedloom.base.errors import ConfigError, ModelError
from fedloom.base.tree import flatten, stack
from fedloom.federated.kernels import client_gradients, example_gradients
from fedloom.models.causal_lm import CausalLM
from fedloom.models.decoder import complete
from fedloom.models.peft_files import AdapterFile
from fedloom.models.prefix import prefix_names
from fedloom.tasks.dpo import _adapters_off
from fedloom.tasks.sft import Sft
from support.clients import CPU, distance, examples, hardware_for_bfloat16
from support.models import model_folder

# peft asks transformers for an attribute that transformers 5 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TASK = Sft()
PLACES = 5
FAMILIES = ("llama", "qwen2", "gpt2")


@cache
def folder(architecture="llama"):
    return model_folder(Path(mkdtemp()) / architecture, architecture, tie_word_embeddings=False)


def family(architecture="llama", **settings):
    return CausalLM(**{"path": str(folder(architecture)), "lora_rank": 0, "prefix": PLACES} | settings)


def moved(params, seed=0, by=0.5):
    draw = torch.Generator().manual_seed(seed)
    return {name: one + by * torch.randn(one.shape, generator=draw) for name, one in params.items()}


def stacked(own):
    return {name: one.requires_grad_() for name, one in stack(own).items()}


@cache
def built(architecture="llama", **settings):
    return family(architecture, **settings).build(seed=0, device=CPU)


def base(architecture):
    return AutoModelForCausalLM.from_pretrained(folder(architecture), attn_implementation="eager").eval()


def flat(model, params):
    """The parameters of a prefix as peft lays them out, written down once more."""
    names = prefix_names(model.module)
    pairs = [(params[key], params[value]) for key, value in zip(names[::2], names[1::2], strict=True)]
    return torch.stack([part for pair in pairs for part in pair], dim=1).flatten(1)


def oracle(architecture, model, params):
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PLACES)
    made = get_peft_model(base(architecture), config)
    weight = made.get_parameter("prompt_encoder.default.embedding.weight")
    weight.data.copy_(flat(model, params))
    return made.eval(), weight


def truth(architecture, model, params, items):
    """Peft's summed loss and its gradient as one row [L, 2 n G d], each example alone."""
    made, weight = oracle(architecture, model, params)
    total = 0
    for item in items:
        logits = made(input_ids=item.tokens_T.long()[None]).logits[0]
        asked = item.supervised_T[1:].nonzero().squeeze(1)
        total = total + torch.nn.functional.cross_entropy(
            logits[asked], item.tokens_T.long()[asked + 1], reduction="sum"
        )
    (grad,) = torch.autograd.grad(total, [weight])
    return float(total.detach()), grad


@pytest.mark.parametrize("architecture", FAMILIES)
def test_loss_and_gradients_of_several_clients_are_those_of_prefix_tuning_in_peft(architecture):
    model = built(architecture)
    assert model.stackable
    assert model.passage == "packed"
    own = [moved(model.trainable, k) for k in range(3)]
    parts = [examples((9, 4, 9), "a"), examples((7,), "b"), examples((12, 3), "c")]
    found = client_gradients(model, TASK, stacked(own), parts)
    names = list(model.trainable)
    for k, (params, part) in enumerate(zip(own, parts, strict=True)):
        loss, grad = truth(architecture, model, params, part)
        assert float(found.total_K[k]) == pytest.approx(loss, rel=1e-5)
        row = found.sum_KP[k].split([model.trainable[name].numel() for name in names])
        mine = {name: one.view_as(model.trainable[name]) for name, one in zip(names, row, strict=True)}
        assert distance(flat(model, mine), grad) < 1e-5


def test_an_example_s_gradient_is_that_of_it_alone():
    model, parts = built(lora_rank=2), [examples((9, 4), "a"), examples((7, 11, 3), "b")]
    leaves = stacked([moved(model.trainable, k, 0.1) for k in range(2)])
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.25])
    found, _ = example_gradients(model, TASK, leaves, parts, lambda norms_LE: weights.expand_as(norms_LE))
    wanted, places = torch.zeros_like(found), iter(weights.tolist())
    for k, part in enumerate(parts):
        for item in part:
            own = {name: leaf[k : k + 1].detach().requires_grad_() for name, leaf in leaves.items()}
            one = client_gradients(model, TASK, own, [[item]])
            wanted[k] += next(places) / one.weight_K[0] * one.sum_KP[0]
    assert distance(found, wanted) < 1e-5


def test_factors_beside_a_prefix_have_the_gradients_that_differences_tell():
    model, parts = built(lora_rank=2), [examples((9, 4), "a")]
    start = moved(model.trainable, by=0.1)
    assert {name.rpartition(".")[2] for name in start} == {"lora_A", "lora_B", "key", "value"}
    found = client_gradients(model, TASK, stacked([start]), parts)
    draw = torch.Generator().manual_seed(1)
    way = {name: torch.randn(one.shape, generator=draw) for name, one in start.items()}

    def loss(by):
        at = {name: one + by * way[name] for name, one in start.items()}
        return float(client_gradients(model, TASK, stacked([at]), parts).total_K)

    slope = float(found.sum_KP[0] @ torch.cat([way[name].flatten() for name in start]))
    assert (loss(1e-3) - loss(-1e-3)) / 2e-3 == pytest.approx(slope, rel=1e-2)


def test_a_prefix_of_no_places_is_the_model_without():
    model, batch = built(), TASK.collate([examples((9, 4, 17))], built())
    bare = built(prefix=0, lora_rank=2)
    model.context.batch = bare.context.batch = batch
    found = model.token_losses(_adapters_off(model), batch)
    assert torch.allclose(found, bare.token_losses(bare.trainable, batch), atol=1e-5)
    assert (found - model.token_losses(model.trainable, batch)).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", FAMILIES)
def test_greedy_answers_are_those_of_peft(architecture):
    model = built(architecture)
    params = moved(model.trainable)
    made, _ = oracle(architecture, model, params)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
    found = complete(model, params, prompts, stop=(), max_new_tokens=6)
    for prompt, answer in zip(prompts, found, strict=True):
        tokens = list(prompt)
        for _ in range(6):
            tokens.append(int(made(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        assert answer == tokens[len(prompt) :]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_owners_answer_together_as_each_does_alone_behind_a_shared_beginning(architecture):
    model = built(architecture)
    own = [moved(model.trainable, k) for k in range(2)]
    prompts = [[*range(5, 17), last] for last in (20, 30, 40)]
    settings = {"stop": (), "max_new_tokens": 5}
    together = complete(model, stack(own), prompts * 2, owners=2, slots=4, **settings)
    alone = [complete(model, params, [prompt], **settings)[0] for params in own for prompt in prompts]
    assert together == alone
    assert together[:3] != together[3:]


def test_a_pass_of_plain_rows_is_that_of_a_packed_batch():
    model, item = built(), examples((9,))[0]
    batch = TASK.collate([[item]], model)
    model.context.batch = batch
    with torch.no_grad():
        expected = model.token_logits(model.trainable, batch)
        found = model.module(item.tokens_T.long()[None]).logits[0, batch.asked_S]
    assert torch.allclose(found, expected, atol=1e-5)


def test_recomputing_blocks_changes_no_bit():
    parts = [examples((9, 4), "a"), examples((7,), "b")]
    kept, again = (built(gradient_checkpointing=way) for way in (False, True))
    leaves = stacked([moved(kept.trainable, k) for k in range(2)])
    rows = [client_gradients(model, TASK, leaves, parts).sum_KP for model in (kept, again)]
    assert torch.equal(*rows)


def test_bfloat16_gives_nearly_the_losses_of_float32():
    with hardware_for_bfloat16():
        rough = family(dtype="bfloat16").build(seed=0, device=CPU)
    batch = TASK.collate([examples((9, 4, 17))], rough)
    losses = []
    for model in (built(), rough):
        model.context.batch = batch
        losses.append(model.token_losses(moved(model.trainable), batch).float())
    assert distance(losses[1], losses[0]) < 0.03


def test_the_start_is_small_named_by_the_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (family().build(seed=seed, device=CPU).trainable for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(flatten(first), flatten(again))
    assert not torch.equal(flatten(first), flatten(other))
    assert float(flatten(first).std()) == pytest.approx(0.02, rel=0.1)


def test_positions_that_end_leave_room_for_the_prefix():
    assert built("gpt2").positions == built("gpt2", prefix=0, lora_rank=2).positions - PLACES
    assert built().context_size == built(prefix=0, lora_rank=2).context_size - PLACES


# -------------------------------------------------------------------------------------------------------------- on disk


@pytest.mark.parametrize("architecture", FAMILIES)
def test_peft_loads_what_is_written_and_gives_the_same_logits(architecture, tmp_path):
    model = built(architecture)
    params = moved(model.trainable)
    family(architecture).save(model, params, str(tmp_path / "adapter"))
    theirs = PeftModel.from_pretrained(base(architecture), tmp_path / "adapter").eval()
    item = examples((9,))[0]
    batch = TASK.collate([[item]], model)
    model.context.batch = batch
    with torch.no_grad():
        expected = theirs(input_ids=item.tokens_T.long()[None]).logits[0, batch.asked_S]
        assert torch.allclose(model.token_logits(params, batch), expected, atol=1e-4)


def test_what_peft_writes_is_read(tmp_path):
    model = built()
    params = moved(model.trainable)
    oracle("llama", model, params)[0].save_pretrained(tmp_path)
    found = family().load_adapter(model, str(tmp_path))
    assert list(found) == list(params)
    assert torch.equal(flatten(found), flatten(params))


@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_written_is_read_back_bit_for_bit_and_built_upon(rank, tmp_path):
    model, settings = built(lora_rank=rank), family(lora_rank=rank)
    params = moved(model.trainable)
    settings.save(model, params, str(tmp_path / "adapter"))
    assert torch.equal(flatten(settings.load_adapter(model, str(tmp_path / "adapter"))), flatten(params))
    again = CausalLM.for_adapter(tmp_path / "adapter")
    assert (again.prefix, again.lora_rank) == (PLACES, rank)
    again = replace(again, path=settings.path).build(seed=9, device=CPU)
    assert torch.equal(flatten(again.trainable), flatten(params))


def test_factors_and_a_prefix_in_one_folder_are_refused_by_peft(tmp_path):
    model = built(lora_rank=2)
    family(lora_rank=2).save(model, {}, str(tmp_path / "adapter"))
    with pytest.raises(KeyError, match="FEDLOOM"):
        PeftModel.from_pretrained(base("llama"), tmp_path / "adapter")


def changed(folder, **entries):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def test_files_that_are_no_prefix_of_the_run_s_are_refused(tmp_path):
    model, place = built(), tmp_path / "adapter"
    family().save(model, {}, str(place))
    with pytest.raises(ModelError, match=r"prefix 5, the run has 3; set model\.prefix = 5"):
        family(prefix=3).load_adapter(built(prefix=3), str(place))
    with pytest.raises(ModelError, match=r"rank 0, the run has 2; set model\.lora_rank = 0"):
        family(lora_rank=2).load_adapter(built(lora_rank=2), str(place))
    changed(place, prefix_projection=True)
    with pytest.raises(ModelError, match="prefix_projection is true, allowed is"):
        AdapterFile.of(place)
    changed(place, prefix_projection=False, num_virtual_tokens=None)
    with pytest.raises(ModelError, match="no number under num_virtual_tokens"):
        AdapterFile.of(place)


def test_a_prefix_is_not_merged_into_weights(tmp_path):
    family().save(built(), {}, str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match="a prefix is no sum with weights; export the adapter without --merged"):
        CausalLM.for_adapter(tmp_path / "adapter").write_merged(tmp_path / "out")


def test_an_exported_prefix_is_one_that_peft_loads(tmp_path):
    model = built()
    params = moved(model.trainable)
    family().save(model, params, str(tmp_path / "adapter"))
    replace(CausalLM.for_adapter(tmp_path / "adapter"), path=str(folder())).write_adapter(tmp_path / "out")
    made = PeftModel.from_pretrained(base("llama"), tmp_path / "out")
    assert torch.equal(made.get_parameter("prompt_encoder.default.embedding.weight"), flat(model, params))


# -------------------------------------------------------------------------------------------------------------- refused


def test_an_architecture_of_which_it_is_not_known_is_refused():
    with pytest.raises(
        ConfigError, match="found 5 places for MistralForCausalLM, allowed for GPT2LMHeadModel, Llama, "
    ):
        built("mistral")


def test_another_attention_is_refused():
    with pytest.raises(ConfigError, match="attention: found 'sdpa' with a prefix, allowed is 'packed'"):
        family(attention="sdpa").check()


def test_base_weights_are_not_trained_beside_a_prefix():
    with pytest.raises(ConfigError, match="a base weight; allowed are lora_A and lora_B, key and value of a prefix"):
        family().build(seed=0, device=CPU, train="norm")


def test_a_prefix_may_be_trained_while_factors_rest():
    found = family(lora_rank=2).build(seed=0, device=CPU, train=r"prefix").trainable
    assert found.keys() == set(prefix_names(built().module))
