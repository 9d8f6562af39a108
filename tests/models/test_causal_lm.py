"""The causal_lm family: what is built and trained, what is refused, and that nothing leaks meanwhile."""

import hashlib
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedloom.base import tree
from fedloom.base.errors import ConfigError, MemoryExceededError, MissingFileError, ModelError
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import ModelFamily
from fedloom.models.causal_lm import CausalLM
from fedloom.models.checkpoint import Checkpoint
from fedloom.text.pretrained import quiet
from support.clients import hardware_for_bfloat16
from support.models import bare_model, model_folder, some_tokens, tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return model_folder(tmp_path / "tiny")


def built(folder, *, seed=0, train=None, device=CPU, **settings):
    return CausalLM(path=str(folder), **settings).build(seed=seed, device=device, train=train)


def logits(model, params, tokens):
    return functional_call(model.module, params, (), {"input_ids": tokens, "use_cache": False}).logits


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def randomised(params):
    return {name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in params.items()}


# ------------------------------------------------------------------------------------------------------ what is built


def test_the_family_is_found_by_name():
    assert lookup(ModelFamily, "causal_lm") is CausalLM


def test_every_factor_is_trained_by_default(folder):
    names = built(folder).trainable.keys()
    assert len(names) == 2 * 2 * 7
    assert {name.rpartition(".")[2] for name in names} == {"lora_A", "lora_B"}


def test_a_pattern_freezes_a(folder):
    assert {name.rpartition(".")[2] for name in built(folder, train="lora_B").trainable} == {"lora_B"}


def test_a_pattern_selects_layers(folder):
    names = list(built(folder, train=r"1\.self_attn\.q_proj\.lora").trainable)
    assert names == ["model.layers.1.self_attn.q_proj.lora_A", "model.layers.1.self_attn.q_proj.lora_B"]


def test_equal_seeds_build_equal_trees(folder):
    assert tree.digest(built(folder, seed=3).trainable) == tree.digest(built(folder, seed=3).trainable)


def test_other_seeds_build_other_trees(folder):
    assert tree.digest(built(folder, seed=3).trainable) != tree.digest(built(folder, seed=4).trainable)


def test_building_leaves_the_global_generators_alone(folder):
    before = torch.get_rng_state(), random.getstate()
    built(folder)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_building_prints_and_warns_nothing(folder, capfd, recwarn):
    built(folder)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_rank_of_zero_trains_every_parameter_and_a_tied_one_once(folder):
    expected = [name for name, _ in bare_model("llama").named_parameters()]
    assert list(built(folder, lora_rank=0).trainable) == expected
    assert "lm_head.weight" not in expected


def test_a_tied_parameter_reaches_both_its_places(folder):
    model, oracle = built(folder, lora_rank=0), bare_model("llama")
    with torch.no_grad():
        oracle.get_parameter("model.embed_tokens.weight").mul_(3.0)
    params = model.trainable | {"model.embed_tokens.weight": 3.0 * model.trainable["model.embed_tokens.weight"]}
    torch.testing.assert_close(logits(model, params, some_tokens()), oracle(some_tokens(), use_cache=False).logits)


def test_the_trainable_tree_is_a_copy(folder):
    model = built(folder, lora_rank=0)
    model.trainable["model.norm.weight"].zero_()
    assert model.module.get_parameter("model.norm.weight").abs().sum() > 0


def test_the_trainable_tree_is_float32_over_a_bfloat16_base(folder):
    with hardware_for_bfloat16():
        model = built(folder, dtype="bfloat16")
    assert {tensor.dtype for tensor in model.trainable.values()} == {torch.float32}
    assert model.module.get_parameter("model.layers.0.mlp.up_proj.base.weight").dtype == torch.bfloat16


def test_only_what_is_trained_gets_a_gradient(folder):
    model = built(folder, train="lora_B")
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in model.trainable.items()}
    logits(model, leaves, some_tokens()).square().sum().backward()
    assert all(leaf.grad is not None for leaf in leaves.values())
    assert [name for name, parameter in model.module.named_parameters() if parameter.grad is not None] == []


def test_the_module_is_in_evaluation_mode(folder):
    assert not any(part.training for part in built(folder).module.modules())


def test_eager_attention_agrees_with_sdpa(folder):
    model, eager = built(folder), built(folder, attention="eager")
    params = randomised(model.trainable)
    torch.testing.assert_close(logits(eager, params, some_tokens()), logits(model, params, some_tokens()))


def test_the_base_id_is_the_name_and_hash_of_the_weights(folder):
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert built(folder).base_id == f"tiny sha256:{found}"


def sharded(folder):
    with quiet():
        bare_model("llama").save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_model_in_shards_is_the_model(folder):
    whole = tree.digest(built(folder, lora_rank=0).trainable)
    assert len(list(sharded(folder).glob("model-*.safetensors"))) > 1
    assert tree.digest(built(folder, lora_rank=0).trainable) == whole


def test_a_start_adapter_is_where_training_starts(folder, tmp_path):
    model = built(folder)
    params = randomised(model.trainable)
    CausalLM(path=str(folder)).save(model, params, str(tmp_path / "adapter"))
    assert tree.digest(built(folder, adapter=str(tmp_path / "adapter")).trainable) == tree.digest(params)


def test_a_saved_adapter_loads_back(folder, tmp_path):
    family, model = CausalLM(path=str(folder)), built(folder)
    params = randomised(model.trainable)
    family.save(model, params, str(tmp_path / "adapter"))
    assert tree.digest(family.load_adapter(model, str(tmp_path / "adapter"))) == tree.digest(params)


def test_a_frozen_factor_is_saved_with_the_trained_ones(folder, tmp_path):
    family, model = CausalLM(path=str(folder)), built(folder, train="lora_B")
    family.save(model, randomised(model.trainable), str(tmp_path / "adapter"))
    assert family.load_adapter(model, str(tmp_path / "adapter")).keys() == built(folder).trainable.keys()


def test_settings_for_an_adapter_rebuild_it(folder, tmp_path):
    family = CausalLM(path=str(folder), lora_rank=2, lora_alpha=3.0, lora_targets=("q_proj", "up_proj"))
    model = family.build(seed=0, device=CPU)
    params = randomised(model.trainable)
    family.save(model, params, str(tmp_path / "adapter"))
    again = CausalLM.for_adapter(tmp_path / "adapter").build(seed=9, device=CPU)
    assert torch.equal(logits(again, again.trainable, some_tokens()), logits(model, params, some_tokens()))


def test_a_model_trained_whole_is_saved_for_transformers(folder, tmp_path):
    family, model = CausalLM(path=str(folder), lora_rank=0), built(folder, lora_rank=0)
    params = randomised(model.trainable)
    family.save(model, params, str(tmp_path / "whole"))
    with quiet():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    assert torch.equal(loaded(some_tokens(), use_cache=False).logits, logits(model, params, some_tokens()))


def test_a_model_trained_whole_is_saved_with_its_tokenizer(folder, tmp_path):
    model = built(folder, lora_rank=0)
    CausalLM(path=str(folder), lora_rank=0).save(model, model.trainable, str(tmp_path / "whole"))
    assert AutoTokenizer.from_pretrained(tmp_path / "whole").get_vocab() == tokenizer().get_vocab()


def test_saving_prints_nothing(folder, tmp_path, capfd):
    model = built(folder, lora_rank=0)
    CausalLM(path=str(folder), lora_rank=0).save(model, model.trainable, str(tmp_path / "whole"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.shared
def test_a_real_model_and_its_tokenizer_load(shared_data):
    model = built(shared_data / "model-stories260k" / "hf")
    tokens = torch.tensor([model.tokenizer("Once upon a time, there was a little girl")["input_ids"]])
    logprobs_TV = logits(model, model.trainable, tokens)[0].log_softmax(-1)
    # A pretrained model predicts a story far better than chance, which is log 512 = 6.2.
    assert -logprobs_TV[:-1].gather(1, tokens[0, 1:, None]).mean() < 3.0


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_pattern_that_selects_nothing_is_refused(folder):
    with pytest.raises(ConfigError, match=r"train: 'lora_C' selects no parameter. Did you mean 'lora_[AB]'\? Known"):
        built(folder, train="lora_C")


def test_a_pattern_that_selects_base_weights_beside_adapters_is_refused(folder):
    with pytest.raises(ConfigError, match=r"selects 'model.norm.weight', a base weight; allowed are lora_A and lora_B"):
        built(folder, train="model.norm|lora_B")


def test_a_pattern_that_is_no_regular_expression_is_refused(folder):
    with pytest.raises(ConfigError, match=r"train: '\(' is no regular expression"):
        built(folder, train="(")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_dropout": 1.0}, "lora_dropout: found 1, which drops every input"),
        ({"lora_dropout": -0.1}, "lora_dropout: found -0.1, allowed is a number >= 0 and <= 1"),
        ({"lora_rank": -1}, "lora_rank: found -1, allowed is a number >= 0"),
        ({"lora_alpha": 0.0}, "lora_alpha: found 0.0, allowed is a number > 0"),
        ({"lora_rank": 0, "adapter": "there"}, "adapter: found with lora_rank = 0"),
        ({"lora_rank": 0, "dtype": "bfloat16"}, "lora_rank: found 0, .* allowed with dtype float32, unquantised"),
        ({"lora_rank": 0, "quantise": "8bit"}, "lora_rank: found 0, .* allowed with dtype float32, unquantised"),
        ({"attention": "flash_attention_2"}, "flash_attention_2 needs dtype bfloat16 or float16"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        CausalLM(**settings)


def test_quantisation_without_a_cuda_device_is_refused(folder):
    with pytest.raises(ConfigError, match="quantise: '4bit' needs a CUDA device, found cpu"):
        built(folder, quantise="4bit")


def test_quantisation_without_its_library_names_the_extra(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes; pip install fedloom\[bitsandbytes\]"):
        built(folder, quantise="8bit", device=torch.device("cuda"))


def test_bfloat16_where_it_is_emulated_is_refused(folder, monkeypatch):
    monkeypatch.setattr("fedloom.models.causal_lm.bfloat16_gain", lambda device: 0.1)
    with pytest.raises(ConfigError, match=r"dtype: found 'bfloat16', which cpu has not in hardware .* takes 10 times"):
        built(folder, dtype="bfloat16")


def test_a_small_model_is_float32_by_itself(folder, monkeypatch):
    monkeypatch.setattr("fedloom.models.causal_lm.bfloat16_gain", lambda device: 9.0)
    assert {parameter.dtype for parameter in built(folder).module.parameters()} == {torch.float32}


@pytest.mark.parametrize(("gain", "dtype"), [(1.4, torch.float32), (1.6, torch.bfloat16)])
def test_a_large_base_is_bfloat16_where_that_is_measured_to_be_faster(folder, monkeypatch, gain, dtype):
    monkeypatch.setattr("fedloom.models.causal_lm.bfloat16_gain", lambda device: gain)
    monkeypatch.setattr(Checkpoint, "weight_bytes", 200_000_000)
    assert built(folder).module.get_parameter("model.layers.0.mlp.up_proj.base.weight").dtype == dtype


@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("bfloat16", 2)])
def test_weights_that_do_not_fit_are_refused_before_they_are_read(folder, monkeypatch, dtype, bytes_each):
    n_weights = sum(weight.numel() for weight in load_file(folder / "model.safetensors").values())
    here = "fedloom.models.causal_lm"
    monkeypatch.setattr(f"{here}.bfloat16_gain", lambda _: 2.0)
    monkeypatch.setattr(f"{here}.free_bytes", lambda _: n_weights * bytes_each)
    built(folder, dtype=dtype)
    monkeypatch.setattr(f"{here}.free_bytes", lambda _: n_weights * bytes_each - 1)
    monkeypatch.setattr(f"{here}.Llama.load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(MemoryExceededError, match=f"{n_weights:,} weights of {bytes_each} bytes take .* free on cpu"):
        built(folder, dtype=dtype)


def test_a_missing_attention_library_is_refused(folder):
    with (
        hardware_for_bfloat16(),
        pytest.raises(ConfigError, match="attention: 'flash_attention_2' cannot be used here"),
    ):
        built(folder, attention="flash_attention_2", dtype="bfloat16")


@pytest.mark.parametrize("path", ["no-such-owner/no-such-model", "../no/such/folder"])
def test_a_model_that_is_nowhere_is_refused(path):
    with pytest.raises(MissingFileError, match=f"model.path '{path}': neither a local folder nor a hub model"):
        built(path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"no config.json; a model is a folder as save_pretrained writes it"):
        built(tmp_path)


def test_an_adapter_in_place_of_a_model_is_refused(folder, tmp_path):
    model = built(folder)
    CausalLM(path=str(folder)).save(model, model.trainable, str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match=r"an adapter, not a model; give it as model.adapter"):
        built(tmp_path / "adapter")


def test_pickled_weights_are_refused(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds only pickled weights \(pytorch_model.bin\), allowed are safetensors"):
        built(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model.safetensors: missing"):
        built(folder)


def test_a_missing_shard_is_refused(folder):
    next(iter(sharded(folder).glob("model-00002-*.safetensors"))).unlink()
    with pytest.raises(MissingFileError, match=r"model-00002-of-.*.safetensors: missing"):
        built(folder)


def test_an_index_that_is_none_is_refused(folder):
    (sharded(folder) / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match=r"model.safetensors.index.json: no index of weights"):
        built(folder)


@pytest.mark.parametrize("keep", [0, 4, 300, -7])
def test_truncated_weights_are_refused(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model.safetensors: no complete safetensors file"):
        built(folder)


def test_weights_that_lack_a_tensor_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"'model.norm.weight' is missing from the weights, as 1 in all"):
        built(folder)


def test_weights_beyond_the_architecture_are_refused(folder):
    edit_config(folder, num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"'model.layers.1.* is in the weights but not in the architecture"):
        built(folder)


def test_weights_of_another_shape_are_refused(folder):
    edit_config(folder, intermediate_size=40)
    with pytest.raises(ModelError, match=r"mlp.* has another shape than config.json says"):
        built(folder)


def test_an_unknown_architecture_is_refused(folder):
    edit_config(folder, model_type="unheard_of")
    with pytest.raises(ModelError, match=r"cannot be loaded as a causal model .*unheard_of"):
        built(folder)


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    trace = tmp_path / "was_run"
    (folder / "own.py").write_text(f"open({str(trace)!r}, 'w').close()")
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    with pytest.raises(ModelError, match=str(folder)):
        built(folder)
    assert not trace.exists()


def test_an_encoder_with_a_decoder_is_refused(folder):
    edit_config(folder, model_type="t5")
    with pytest.raises(ModelError, match=r"cannot be loaded as a causal model .*T5Config"):
        built(folder)


def test_a_model_without_a_tokenizer_is_refused(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"no usable tokenizer .*; put tokenizer.json beside the model"):
        built(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder):
    larger = tokenizer()
    larger.add_tokens(["one", "two"])
    larger.save_pretrained(folder)
    with pytest.raises(ModelError, match="the tokenizer has 65 tokens, the model embeds 64"):
        built(folder)


def test_an_adapter_for_a_model_without_one_is_refused(folder):
    model = built(folder, lora_rank=0)
    with pytest.raises(ModelError, match="the model was built with lora_rank = 0, which has none"):
        CausalLM(path=str(folder), lora_rank=0).load_adapter(model, "somewhere")


def test_a_tensor_that_is_not_the_models_is_not_saved(folder, tmp_path):
    model = built(folder, lora_rank=0)
    with pytest.raises(ModelError, match="'extra' is no parameter of the model; nothing was written"):
        CausalLM(path=str(folder), lora_rank=0).save(model, {"extra": torch.zeros(1)}, str(tmp_path / "whole"))


def test_an_adapter_that_names_no_base_is_no_start_for_settings(folder, tmp_path):
    model = built(folder)
    CausalLM(path=str(folder)).save(model, model.trainable, str(tmp_path / "adapter"))
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match=r"no base_model_name_or_path in adapter_config.json; name the base there"):
        CausalLM.for_adapter(tmp_path / "adapter")
