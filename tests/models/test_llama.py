"""Our plain Llama against the one of transformers: the same names, the same numbers to the last bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from fedloom.base.errors import ModelError
from fedloom.models.causal_lm import CausalLM
from fedloom.models.checkpoint import Checkpoint
from fedloom.models.llama import TARGETS, Llama, LlamaShape
from fedloom.models.lora import pattern, usual_layers
from fedloom.text.pretrained import quiet
from support.models import SIZES, VOCABULARY, model_folder, some_tokens, tokenizer
from support.paths import ROOT

CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
KINDS = {
    "grouped and tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "as many keys as queries": {"num_key_value_heads": 4},
    "heads of another width": {"head_dim": 16},
    "llama 3": {"rope_parameters": LLAMA3},
    "another base": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "rms_norm_eps": 1e-2},
}


def saved(folder, **changes):
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | changes))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        module.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return Checkpoint("tiny", folder)


def ours(source, dtype=torch.float32):
    return Llama.load(LlamaShape.read(source.folder), source.weights, dtype=dtype, device=CPU)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers_to_the_last_bit(kind, dtype, tmp_path):
    source = saved(tmp_path, **KINDS[kind])
    theirs = source.module(dtype=dtype, attention="sdpa").eval()
    tokens_BT = some_tokens(3, 50)
    with torch.no_grad():
        found, expected = ours(source, getattr(torch, dtype))(tokens_BT).logits, theirs(tokens_BT).logits
    if dtype == "float32":
        assert torch.equal(found, expected)
    assert torch.allclose(found, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


def test_positions_may_be_said(tmp_path):
    source = saved(tmp_path)
    positions_BT = torch.tensor([[3, 4, 5, 9, 10, 30, 31]])
    inputs = {"input_ids": some_tokens(1, 7), "position_ids": positions_BT}
    with torch.no_grad():
        found = ours(source)(**inputs).logits
        assert torch.equal(found, source.module(dtype="float32", attention="sdpa")(**inputs).logits)
        assert not torch.equal(found, ours(source)(some_tokens(1, 7)).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_have_the_names_and_the_order_of_transformers(kind, tmp_path):
    source = saved(tmp_path, **KINDS[kind])
    theirs = source.module(dtype="float32")
    assert [name for name, _ in ours(source).named_parameters()] == [name for name, _ in theirs.named_parameters()]


def test_adapters_go_by_default_where_they_go_in_transformers(tmp_path):
    assert {pattern(name) for name in usual_layers(saved(tmp_path).module(dtype="float32"))} == TARGETS


@pytest.mark.parametrize("wanted", [1, 3, torch.tensor([0, 4])], ids=["last", "three", "chosen"])
def test_logits_of_some_tokens_are_those_of_all(wanted, tmp_path):
    module, tokens_BT = ours(saved(tmp_path)), some_tokens(2, 9)
    places = wanted if isinstance(wanted, torch.Tensor) else slice(-wanted, None)
    found, expected = module(tokens_BT, logits_to_keep=wanted).logits, module(tokens_BT).logits[:, places]
    assert torch.allclose(found, expected, atol=1e-6)
    rows, ends = torch.tensor([1, 0]), torch.tensor([3, 8])
    chosen = module(tokens_BT, logits_to_keep=(rows, ends)).logits
    assert torch.allclose(chosen, module(tokens_BT).logits[rows, ends], atol=1e-6)


@pytest.mark.parametrize(
    "stated",
    [
        {"model_type": "mistral"},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"quantization_config": {"bits": 4}},
        {"auto_map": {"AutoModel": "code.Model"}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"hidden_size": "wide"},
        {"num_hidden_layers": None},
    ],
    ids=lambda stated: next(iter(stated)),
)
def test_a_configuration_that_says_anything_else_is_no_plain_llama(stated, tmp_path):
    folder = model_folder(tmp_path)
    assert LlamaShape.read(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | stated))
    assert LlamaShape.read(folder) is None


def test_old_names_of_positions_mean_the_same(tmp_path):
    folder = model_folder(tmp_path)
    before = LlamaShape.read(folder)
    config = json.loads((folder / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": theta, "rope_scaling": None}))
    assert LlamaShape.read(folder) == before


@pytest.mark.parametrize(
    "settings",
    [{"lora_rank": 0}, {"attention": "sdpa"}, {"lora_targets": ("q_proj", "lm_head")}],
    ids=["whole", "sdpa", "head"],
)
def test_what_ours_is_not_known_to_train_exactly_goes_through_transformers(settings, tmp_path):
    source = saved(tmp_path, tie_word_embeddings=False)
    build = CausalLM(path=str(source.folder), **settings).build
    assert isinstance(build(seed=0, device=CPU).module, PreTrainedModel)
    assert isinstance(CausalLM(path=str(source.folder)).build(seed=0, device=CPU).module, Llama)


def test_weights_that_are_not_those_of_the_configuration_are_refused(tmp_path):
    folder = model_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(ModelError, match=r"has another shape than config\.json says"):
        CausalLM(path=str(folder)).build(seed=0, device=CPU)


def test_context_and_ends_are_those_of_the_files(tmp_path):
    model = CausalLM(path=str(model_folder(tmp_path))).build(seed=0, device=CPU)
    assert (model.context_size, model.ends, model.width) == (64, {2}, SIZES["hidden_size"])
    assert len(model.module.get_input_embeddings().weight) == VOCABULARY


def test_the_first_step_of_the_embedded_model_imports_no_transformers():
    code = (
        "from benchmarks.startup import first_step; first_step('fedloom', 'cpu'); import sys; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'transformers', 'sympy', 'datasets'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(ROOT))
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_damaged_settings_of_generation_are_refused_in_a_line(damage, tmp_path):
    folder = model_folder(tmp_path)
    (folder / "generation_config.json").write_text(damage)
    with pytest.raises(ModelError, match=r"generation_config\.json: no JSON object .*; fetch it again\.$"):
        CausalLM(path=str(folder)).build(seed=0, device=CPU)
