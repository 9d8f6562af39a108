"""Exported adapters and merged models: the numbers of the run, the card, and what is refused."""

import ast
import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedloom.base.errors import MissingFileError, ModelError, RunError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.models.causal_lm import CausalLM
from fedloom.runs.export import export
from fedloom.text.pretrained import quiet
from support.models import bare_model, model_folder, some_tokens, tokenizer

# peft asks transformers for an attribute that transformers 5 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

RUN = """
protocol = "federated"
rounds = 7
seed = 3
[model]
name = "causal_lm"
path = "{base}"
[data]
name = "world"
"""


def run_directory(tmp_path, architecture="llama", **settings):
    """A run directory with a result, and the logits of that result."""
    base = model_folder(tmp_path / "base", architecture)
    family = CausalLM(path=str(base), **settings)
    model = family.build(seed=0, device=torch.device("cpu"))
    draw = torch.Generator().manual_seed(1)
    params = {name: t + 0.2 * torch.randn(t.shape, generator=draw) for name, t in model.trainable.items()}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.toml").write_text(RUN.format(base=base))
    family.save(model, params, str(tmp_path / "run" / "adapter"))
    call = {"input_ids": some_tokens(), "use_cache": False}
    return tmp_path / "run", functional_call(model.module, params, (), call).logits


def merged_logits(folder, dtype="auto"):
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return model(some_tokens(), use_cache=False).logits


def assert_equal_logits(found, expected, tolerance=1e-5):
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_a_merged_model_has_the_logits_of_the_adapter(tmp_path, architecture):
    run, expected = run_directory(tmp_path, architecture)
    export(run, tmp_path / "out", form="merged")
    assert_equal_logits(merged_logits(tmp_path / "out"), expected)


def test_a_merged_model_keeps_the_stored_type_of_its_base(tmp_path):
    run, _ = run_directory(tmp_path)
    with quiet():
        bare_model("llama").bfloat16().save_pretrained(tmp_path / "base")
    family = CausalLM(path=str(tmp_path / "base"))
    family.save(family.build(seed=0, device=torch.device("cpu")), {}, str(run / "adapter"))
    export(run, tmp_path / "out", form="merged")
    assert merged_logits(tmp_path / "out").dtype == torch.bfloat16


def test_an_exported_adapter_has_the_logits_of_the_run_in_peft(tmp_path):
    run, expected = run_directory(tmp_path)
    export(run, tmp_path / "out")
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert_equal_logits(model(input_ids=some_tokens(), use_cache=False).logits, expected)


def test_an_adapter_folder_is_exported_like_its_run(tmp_path):
    run, _ = run_directory(tmp_path)
    export(run, tmp_path / "first")
    export(run / "adapter", tmp_path / "second")
    for file in (tmp_path / "first").iterdir():
        assert (tmp_path / "second" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_tokenizer_goes_with_it(tmp_path, form):
    run, _ = run_directory(tmp_path)
    export(run, tmp_path / "out", form=form)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer().get_vocab()


def test_nothing_is_left_beside_the_export(tmp_path):
    run, _ = run_directory(tmp_path)
    export(run, tmp_path / "out", form="merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out", "run"]


def test_export_prints_nothing(tmp_path, capfd):
    run, _ = run_directory(tmp_path)
    capfd.readouterr()
    export(run, tmp_path / "out", form="merged")
    assert capfd.readouterr() == ("", "")


def test_a_model_trained_whole_is_exported_whole(tmp_path):
    run, expected = run_directory(tmp_path, lora_rank=0)
    export(run, tmp_path / "out", form="merged")
    assert_equal_logits(merged_logits(tmp_path / "out"), expected)


def card(tmp_path, **settings):
    run, _ = run_directory(tmp_path, **settings)
    export(run, tmp_path / "out", form="merged")
    return (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    "row", ["| Base model | base |", "| Rank | 8 |", "| rounds | 7 |", "| protocol | federated |", "| data | world |"]
)
def test_the_card_says_what_was_trained_on_what(tmp_path, row):
    assert row in card(tmp_path)


def test_the_card_of_a_whole_model_names_its_base(tmp_path):
    assert "| Base model | base |" in card(tmp_path, lora_rank=0)


def test_the_card_has_the_hash_of_the_base(tmp_path):
    text = card(tmp_path)
    assert CausalLM(path=str(tmp_path / "base")).base_facts()["Base weights"] in text


def test_the_card_says_that_the_licence_is_unknown_where_the_base_states_none(tmp_path):
    assert "| Licence of the base | unknown: see the base model |" in card(tmp_path)


def test_the_card_states_the_licence_of_the_base(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n# base\n")
    assert "license: mit\n" in card(tmp_path)


def test_the_card_names_no_folder_of_the_machine(tmp_path):
    assert str(tmp_path) not in card(tmp_path)


def code_of(folder):
    return (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]


def loaded_as_the_card_says(folder, **names):
    """What the last line of the card's code gives."""
    code = ast.parse(code_of(folder))
    last = ast.Expression(code.body.pop().value)
    space = {"FOLDER": folder, **names}
    with quiet():
        exec(compile(code, "card", "exec"), space)
        return eval(compile(last, "card", "eval"), space).eval()


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_code_of_the_card_loads_the_model_of_the_run(tmp_path, form):
    run, expected = run_directory(tmp_path)
    export(run, tmp_path / "out", form=form)
    model = loaded_as_the_card_says(tmp_path / "out", BASE=tmp_path / "base")
    assert_equal_logits(model(input_ids=some_tokens(), use_cache=False).logits, expected)


def test_the_card_of_an_adapter_on_the_embedded_base_says_where_that_lies(tmp_path):
    family = CausalLM()
    model = family.build(seed=0, device=torch.device("cpu"))
    params = {name: tensor + 0.1 for name, tensor in model.trainable.items()}
    family.save(model, params, str(tmp_path / "adapter"))
    export(tmp_path / "adapter", tmp_path / "out")
    call = {"input_ids": some_tokens(), "use_cache": False}
    expected = functional_call(model.module, params, (), call).logits
    assert_equal_logits(loaded_as_the_card_says(tmp_path / "out")(**call).logits, expected)


def test_auto_peft_finds_the_base_of_an_adapter(tmp_path):
    run, expected = run_directory(tmp_path)
    export(run, tmp_path / "out")
    with quiet():
        model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert_equal_logits(model(input_ids=some_tokens(), use_cache=False).logits, expected)


def test_an_adapter_calls_its_base_as_it_is_told(tmp_path):
    run, _ = run_directory(tmp_path)
    export(run, tmp_path / "out", base="owner/name")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/name"


def test_an_exported_adapter_is_started_from_again(tmp_path):
    run, _ = run_directory(tmp_path)
    export(run, tmp_path / "out")
    family = CausalLM.for_adapter(tmp_path / "out")
    assert family.build(seed=0, device=torch.device("cpu")).trainable.keys()


def test_the_card_has_the_scores_it_is_given(tmp_path):
    run, _ = run_directory(tmp_path)
    export(run, tmp_path / "out", scores=[("test", "loss", "2.1 [2.0, 2.2]", "1.9 [1.8, 2.0]")])
    assert "| test | loss | 2.1 [2.0, 2.2] | 1.9 [1.8, 2.0] |" in (tmp_path / "out" / "README.md").read_text()


TEMPLATES = ["alpaca", "vicuna", "bare"]


@pytest.mark.parametrize("form", ["adapter", "merged"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tokenizer_has_the_template_of_the_training(tmp_path, name, form):
    run, _ = run_directory(tmp_path)
    with (run / "run.toml").open("a") as file:
        file.write(f'[task]\nname = "sft"\ntemplate = {{ name = "{name}" }}\n')
    export(run, tmp_path / "out", form=form)
    with quiet():
        found = AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = (Turn("user", "w4 w5"), Turn("assistant", "w6"), Turn("user", "w7"))
    right = "".join(piece.text for piece in lookup(Template, name)().pieces(turns, tokenizer()))
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    assert found.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == right
    assert f"| Template | {name}, as the tokenizer" in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_without_a_run_says_so_in_its_card(tmp_path):
    run, _ = run_directory(tmp_path)
    (run / "run.toml").unlink()
    export(run / "adapter", tmp_path / "out")
    assert "Not recorded: no run.toml lay beside the adapter." in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    run, _ = run_directory(tmp_path)
    with pytest.raises(RunError, match="base: exists and is not empty; give a new folder"):
        export(run, tmp_path / "base")


def test_an_empty_folder_is_taken(tmp_path):
    run, _ = run_directory(tmp_path)
    (tmp_path / "out").mkdir()
    export(run, tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_a_folder_without_a_result_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="neither a run directory with a result nor an adapter"):
        export(tmp_path, tmp_path / "out")


def test_a_missing_folder_is_refused_as_missing(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone: no such folder; give a run directory or the folder of an"):
        export(tmp_path / "gone", tmp_path / "out")


def per_client(tmp_path):
    """A run directory in which two clients have results of their own."""
    run, _ = run_directory(tmp_path)
    shutil.copytree(run / "adapter", run / "adapters" / "anna")
    (run / "adapter").rename(run / "adapters" / "bo%20b")
    return run


def test_a_run_with_a_result_for_each_client_names_where_they_lie(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"one for each of 2 clients; export one of them, such as .*/adapters/anna\.$"
    ):
        export(per_client(tmp_path), tmp_path / "out")


def test_the_result_of_one_client_is_exported_with_the_facts_of_its_run(tmp_path):
    export(per_client(tmp_path) / "adapters" / "bo%20b", tmp_path / "out")
    assert "| rounds | 7 |" in (tmp_path / "out" / "README.md").read_text()


def test_a_whole_model_has_no_adapter_to_export(tmp_path):
    run, _ = run_directory(tmp_path, lora_rank=0)
    with pytest.raises(ModelError, match="holds a whole model and no adapter; export it with --merged"):
        export(run, tmp_path / "out")


def test_an_adapter_on_a_tied_weight_is_not_merged(tmp_path):
    run, _ = run_directory(tmp_path, lora_targets=("lm_head",))
    with pytest.raises(ModelError, match="'lm_head' is tied to another weight, which merging would change"):
        export(run, tmp_path / "out", form="merged")


def test_a_refused_export_leaves_nothing(tmp_path):
    run, _ = run_directory(tmp_path, lora_targets=("lm_head",))
    with pytest.raises(ModelError):
        export(run, tmp_path / "out", form="merged")
    assert not (tmp_path / "out").exists()
