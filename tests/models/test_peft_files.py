"""Adapters on disk: the same numbers and files as `peft`, both ways, and what is refused."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_lora import adapted, assert_close, factors, gradient, logits

from fedloom.base import tree
from fedloom.base.errors import MissingFileError, ModelError, RunError
from fedloom.models.peft_files import AdapterFile, read_adapter, write_adapter
from support.models import ARCHITECTURES, bare_model, some_tokens

# peft asks transformers for an attribute that transformers 5 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

BASE = {"base": "some/base", "base_id": "base sha256:aa"}


def named_base(architecture):
    """The bare model under the name that the files state: peft warns of another one."""
    model = bare_model(architecture)
    model.name_or_path = BASE["base"]
    return model


def as_in_peft(name):
    return f"base_model.model.{name.replace('.lora_A', '.lora_A.default').replace('.lora_B', '.lora_B.default')}.weight"


@pytest.fixture(params=ARCHITECTURES)
def pair(request, tmp_path):
    """Our module and factors, and peft's model with the same, loaded from our files."""
    module = adapted(request.param)
    params = factors(module)
    write_adapter(module, params, tmp_path, **BASE)
    return module, params, PeftModel.from_pretrained(named_base(request.param), tmp_path, is_trainable=True).eval()


def test_peft_loads_our_files_and_computes_our_logits(pair):
    module, params, oracle = pair
    expected = oracle(input_ids=some_tokens(), use_cache=False).logits
    assert_close({"": logits(module, params, some_tokens())}, {"": expected})


def test_peft_loads_our_files_and_computes_our_gradients(pair):
    module, params, oracle = pair
    oracle(input_ids=some_tokens(), use_cache=False).logits.square().sum().backward()
    expected = {name: oracle.get_parameter(as_in_peft(name)).grad for name in params}
    assert_close(gradient(module, params, some_tokens()), expected)


@pytest.fixture
def by_peft(tmp_path):
    """A folder that peft wrote, with both factors far from zero, and peft's logits."""
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(named_base("llama"), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    return tmp_path, model(input_ids=some_tokens(), use_cache=False).logits


def test_files_of_peft_give_the_logits_of_peft(by_peft):
    folder, expected = by_peft
    module = adapted(targets=("q_proj", "v_proj"))
    found = logits(module, read_adapter(module, folder, **BASE), some_tokens())
    assert_close({"": found}, {"": expected})


def test_files_of_peft_for_a_base_of_another_name_are_refused(by_peft):
    module = adapted(targets=("q_proj", "v_proj"))
    found = r"adapter of another base .'some/base', the run's model is 'some/other'.; set model.path to its base"
    with pytest.raises(ModelError, match=found):
        read_adapter(module, by_peft[0], base="some/other", base_id="")


def test_files_of_peft_for_the_same_base_in_another_folder_are_read(by_peft):
    module = adapted(targets=("q_proj", "v_proj"))
    assert len(read_adapter(module, by_peft[0], base="elsewhere/base", base_id="")) == 8


@pytest.fixture
def ours(tmp_path):
    """A module, its factors, and the folder we wrote them to."""
    module = adapted()
    params = factors(module)
    write_adapter(module, params, tmp_path / "adapter", **BASE)
    return module, params, tmp_path / "adapter"


def edit_config(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder, change):
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"base_id": BASE["base_id"]})


def test_what_is_written_is_read_back_bit_for_bit(ours):
    module, params, folder = ours
    assert tree.digest(read_adapter(module, folder, **BASE)) == tree.digest(params)


def test_equal_adapters_are_equal_bytes(ours):
    module, params, folder = ours
    first = (folder / "adapter_model.safetensors").read_bytes()
    write_adapter(module, params, folder, **BASE)
    assert (folder / "adapter_model.safetensors").read_bytes() == first


def test_metadata_is_one_entry_whose_order_cannot_vary(ours):
    with safe_open(ours[2] / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"base_id": "base sha256:aa"}


def test_writing_leaves_nothing_else_behind(ours):
    assert sorted(path.name for path in ours[2].parent.iterdir()) == ["adapter"]
    assert sorted(path.name for path in ours[2].iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_targets_are_written_short_where_that_is_exact(ours):
    config = json.loads((ours[2] / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_targets_are_written_whole_where_short_names_would_select_more(tmp_path):
    module = adapted("gpt2", targets=("mlp.c_proj",))
    write_adapter(module, {}, tmp_path, **BASE)
    names = ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == names


def test_factors_left_out_keep_the_values_of_the_module(ours, tmp_path):
    module, params, _ = ours
    write_adapter(module, {n: t for n, t in params.items() if n.endswith("lora_B")}, tmp_path / "b", **BASE)
    name = "model.layers.1.mlp.up_proj.lora_A"
    assert torch.equal(read_adapter(module, tmp_path / "b", **BASE)[name], module.get_parameter(name))


def test_a_tensor_that_is_no_factor_is_not_written(ours, tmp_path):
    with pytest.raises(ModelError, match=r"'model.norm.weight' is no factor of the model's adapter"):
        write_adapter(ours[0], {"model.norm.weight": torch.zeros(32)}, tmp_path / "b", **BASE)


def test_a_factor_of_another_shape_is_not_written(ours, tmp_path):
    name = "model.layers.0.self_attn.q_proj.lora_A"
    with pytest.raises(ModelError, match=r"q_proj.lora_A' has shape \(2, 32\), the model's adapter has \(3, 32\)"):
        write_adapter(ours[0], {name: torch.zeros(2, 32)}, tmp_path / "b", **BASE)


def test_a_folder_that_cannot_be_written_is_refused(ours, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/b: cannot be written \(Not a directory"):
        write_adapter(ours[0], ours[1], tmp_path / "file" / "b", **BASE)


def test_a_full_disk_leaves_the_earlier_adapter_whole(ours, monkeypatch):
    module, params, folder = ours

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(RunError, match="the disk is full"):
            write_adapter(module, tree.scale(params, 2.0), folder, **BASE)
    assert tree.digest(read_adapter(module, folder, **BASE)) == tree.digest(params)


def test_an_adapter_of_another_base_is_refused_by_hash(ours):
    with pytest.raises(
        ModelError, match=r"adapter of another base .'base sha256:aa', the run's model is 'base sha256:bb'"
    ):
        read_adapter(ours[0], ours[2], base="some/base", base_id="base sha256:bb")


def test_an_adapter_of_another_rank_is_refused(ours):
    with pytest.raises(ModelError, match=r"rank 3, the run has 2; set model.lora_rank = 3"):
        read_adapter(adapted(rank=2), ours[2], **BASE)


def test_an_adapter_of_another_alpha_is_refused(ours):
    edit_config(ours[2], lora_alpha=5)
    with pytest.raises(ModelError, match=r"alpha 5, the run has 6; set model.lora_alpha = 5"):
        read_adapter(ours[0], ours[2], **BASE)


def test_an_adapter_of_other_targets_is_refused(ours):
    with pytest.raises(
        ModelError, match=r"other targets than the run's: .* set model.lora_targets .*: down_proj, gate_proj"
    ):
        read_adapter(adapted(targets=("q_proj",)), ours[2], **BASE)


def test_an_adapter_of_another_shape_is_refused(ours):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_weights(ours[2], lambda tensors: tensors.update({name: torch.zeros(3, 31)}))
    with pytest.raises(ModelError, match=r"q_proj.lora_A' is \(3, 31\), this model needs \(3, 32\)"):
        read_adapter(ours[0], ours[2], **BASE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_with_nan_or_infinity_is_refused(ours, value):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_weights(ours[2], lambda tensors: tensors[name].__setitem__((0, 0), value))
    with pytest.raises(ModelError, match=r"q_proj.lora_A' holds NaN or infinity; use an earlier checkpoint"):
        read_adapter(ours[0], ours[2], **BASE)


def test_a_pickled_adapter_is_refused(ours):
    (ours[2] / "adapter_model.safetensors").rename(ours[2] / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"holds pickled weights \(adapter_model.bin\), allowed is adapter_model.safe"):
        read_adapter(ours[0], ours[2], **BASE)


def test_a_truncated_adapter_is_refused(ours):
    file = ours[2] / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"no complete safetensors file \(SafetensorError: .*; fetch it again"):
        read_adapter(ours[0], ours[2], **BASE)


def test_an_adapter_without_weights_is_refused(ours):
    (ours[2] / "adapter_model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"adapter_model.safetensors: missing; an adapter is"):
        read_adapter(ours[0], ours[2], **BASE)


def test_a_missing_folder_is_refused(ours, tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere/adapter_config.json: missing"):
        read_adapter(ours[0], tmp_path / "nowhere", **BASE)


def test_a_config_that_is_no_json_is_refused(ours):
    (ours[2] / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config.json: no JSON \(JSONDecodeError"):
        read_adapter(ours[0], ours[2], **BASE)


def test_an_adapter_that_is_no_lora_is_refused(ours):
    edit_config(ours[2], peft_type="IA3")
    with pytest.raises(ModelError, match="no LoRA adapter"):
        AdapterFile.of(ours[2])


@pytest.mark.parametrize(
    ("key", "value"), [("use_rslora", True), ("use_dora", True), ("bias", "all"), ("rank_pattern", {"q_proj": 4})]
)
def test_an_adapter_that_is_more_than_plain_lora_is_refused(ours, key, value):
    edit_config(ours[2], **{key: value})
    with pytest.raises(ModelError, match=f"{key} is .*, allowed is plain LoRA, without {key}"):
        AdapterFile.of(ours[2])


def test_an_adapter_whose_start_altered_the_base_is_refused(ours):
    edit_config(ours[2], init_lora_weights="pissa")
    with pytest.raises(ModelError, match="init_lora_weights 'pissa' belongs to altered base weights"):
        AdapterFile.of(ours[2])


def test_an_adapter_without_a_rank_is_refused(ours):
    edit_config(ours[2], r=None)
    with pytest.raises(ModelError, match="no numbers under r and lora_alpha"):
        AdapterFile.of(ours[2])
