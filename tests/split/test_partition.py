"""A model in three folders: every tensor where it is needed, hashes, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedloom.base.errors import ConfigError, MissingFileError, ModelError, RunError
from fedloom.models.causal_lm import CausalLM
from fedloom.models.checkpoint import Checkpoint
from fedloom.models.part_files import Manifest, read_part
from fedloom.split.body import Middle
from fedloom.split.cut import Cut
from fedloom.split.ends import Ends
from fedloom.split.partition import partition
from fedloom.split.parts import part_of
from support.models import model_folder
from support.split_models import BLOCKS, CPU, Halves, differences, examples, folder, model, moved

CASES = {"llama": {}, "llama, head of its own": {"tie_word_embeddings": False}, "qwen2": {}, "gpt2": {}}
PARTS, TWO = ("input", "middle", "output"), Cut(2, 1)


def parted(tmp_path, case="llama", cut=TWO):
    source = folder(case.split(",")[0], **CASES[case])
    return source, partition(str(source), cut, tmp_path / "parts")


def tensors(tmp_path):
    return {part: read_part(tmp_path / "parts" / part)[1] for part in PARTS}


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_lies_where_it_is_needed_with_the_bits_it_had(tmp_path, case):
    source, _ = parted(tmp_path, case)
    whole, found = load_file(source / "model.safetensors"), tensors(tmp_path)
    together = {name: one for part in found.values() for name, one in part.items()}
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], one) for name, one in whole.items())
    twice = {name for name in whole if sum(name in part for part in found.values()) > 1}
    tied = not any("lm_head" in name for name in whole)
    assert len(twice) == tied  # a tied head is the embedding, which both ends need


def test_parts_are_those_that_the_cut_computes_with(tmp_path):
    parted(tmp_path, cut=Cut(1, 2))
    found, made = tensors(tmp_path), model()
    for part, blocks in zip(PARTS, (range(1), range(1, 4), range(4, BLOCKS)), strict=True):
        own = {name.replace(".base.", ".") for name, _ in part_of(made, blocks).module.named_parameters()}
        own = {"model.embed_tokens.weight" if name == "lm_head.weight" else name for name in own if "lora" not in name}
        assert set(found[part]) == own


KINDS = {
    "factors": {"lora_rank": 2},
    "prefix": {"lora_rank": 0, "prefix": 3},
    "bfloat16": {"lora_rank": 2, "dtype": "bfloat16"},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("case", CASES)
def test_sides_that_have_their_parts_alone_compute_what_the_whole_model_does(tmp_path, case, kind):
    source, _ = parted(tmp_path, case)
    for side, parts in (("client", ("input", "output")), ("server", ("middle",))):
        for part in parts:
            shutil.copytree(tmp_path / "parts" / part, tmp_path / side / part)
    made = {
        side: moved(CausalLM(path=str(path), **kind).build(seed=3, device=CPU))
        for side, path in (("whole", source), ("client", tmp_path / "client"), ("server", tmp_path / "server"))
    }
    assert not made["client"].whole
    whole, apart = (Halves(made[side], TWO, 1) for side in ("whole", "whole"))
    apart.ends = Ends.of(made["client"], TWO)
    apart.body.middle = Middle.of(made["server"], [TWO])
    texts = [examples(9, 4, 17)]
    (wanted, loss), (found, other) = whole.gradients(texts), apart.gradients(texts)
    assert set(differences(found, wanted).values()) == {0.0}
    assert torch.equal(loss, other)
    with pytest.raises(ModelError, match="which the parts of the model here do not have"):
        part_of(made["client"], range(2, 5))


def test_parts_are_not_trained_whole_and_hold_nothing_of_another_shape(tmp_path):
    parted(tmp_path, "gpt2")
    with pytest.raises(ModelError, match="parts of a model, which are put together for adapters or a prefix"):
        CausalLM(path=str(tmp_path / "parts"), lora_rank=0).build(seed=3, device=CPU)
    for path in (tmp_path / "parts").glob("*/config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"n_embd": 16}))
    with pytest.raises(ModelError, match=r"is not as config\.json says; partition the model anew"):
        CausalLM(path=str(tmp_path / "parts")).build(seed=3, device=CPU)


def test_parts_of_another_architecture_are_refused_by_name(tmp_path):
    parted(tmp_path)
    for path in (tmp_path / "parts").glob("*/config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_bias": True}))
    with pytest.raises(ModelError, match="parts of a LlamaForCausalLM, allowed are GPT2LMHeadModel, Qwen2ForCausalLM"):
        CausalLM(path=str(tmp_path / "parts")).build(seed=3, device=CPU)


def test_the_servers_folder_has_nothing_that_reads_or_writes_a_token(tmp_path):
    parted(tmp_path)
    names = {path.name for path in (tmp_path / "parts" / "middle").iterdir()}
    assert names == {"part.safetensors", "manifest.json", "config.json"}
    assert {int(name.split(".")[2]) for name in tensors(tmp_path)["middle"]} == {2, 3, 4}


def test_a_client_has_all_that_its_texts_and_answers_need(tmp_path):
    """A chat template in a file of its own was once left behind."""
    whole = model_folder(tmp_path / "whole", num_hidden_layers=4)
    (whole / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    partition(str(whole), Cut(1, 1), tmp_path / "parts")
    theirs = {path.name for path in (tmp_path / "parts" / "input").iterdir()}
    assert {path.name for path in whole.iterdir() if not path.name.startswith("model")} <= theirs
    client = Checkpoint.find(str(tmp_path / "parts")).tokenizer()
    assert client.get_chat_template() == Checkpoint.find(str(whole)).tokenizer().get_chat_template()


def test_manifests_agree_in_all_but_the_part(tmp_path):
    _, manifests = parted(tmp_path)
    first, *others = manifests
    for other in others:
        first.refuse_other(other)
    assert [one.part for one in manifests] == list(PARTS)
    assert manifests == [Manifest.read(tmp_path / "parts" / part) for part in PARTS]


@pytest.mark.parametrize(("key", "value"), [("base_id", "other sha256:00"), ("cut", "1:1"), ("dtype", "bfloat16")])
def test_parts_of_two_partitions_have_no_run_together(tmp_path, key, value):
    _, (mine, other, _) = parted(tmp_path)
    theirs = Manifest(**vars(other) | {key: value})
    with pytest.raises(ModelError, match=f"the middle part has {key} = '{value}', the input part has"):
        mine.refuse_other(theirs)


def test_a_changed_tensor_is_not_read(tmp_path):
    parted(tmp_path)
    file = tmp_path / "parts" / "middle" / "part.safetensors"
    changed = load_file(file)
    name = sorted(changed)[0]
    changed[name].flatten()[0] += 1
    save_file(changed, file)
    with pytest.raises(ModelError, match=f"'{name}' differs from its manifest; partition the model anew"):
        read_part(tmp_path / "parts" / "middle")


def test_a_tensor_too_few_and_one_too_many_are_not_read(tmp_path):
    parted(tmp_path)
    file = tmp_path / "parts" / "middle" / "part.safetensors"
    whole = load_file(file)
    for changed in (dict(list(whole.items())[1:]), whole | {"more": torch.zeros(1)}):
        save_file(changed, file)
        with pytest.raises(ModelError, match="differs from its manifest"):
            read_part(tmp_path / "parts" / "middle")


def test_a_torn_file_and_a_missing_manifest_are_refused(tmp_path):
    parted(tmp_path)
    file = tmp_path / "parts" / "input" / "part.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ModelError, match="no complete safetensors file"):
        read_part(tmp_path / "parts" / "input")
    with pytest.raises(MissingFileError, match=r"manifest\.json: missing"):
        read_part(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"part": "front"},
        {"n_blocks": "6"},
        {"tensors": {"a": "beef"}},
        {"more": 1},
        {"base_id": None},
        {"tensors": []},
    ],
)
def test_a_manifest_is_read_strictly(tmp_path, change):
    parted(tmp_path)
    path = tmp_path / "parts" / "input" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match="is not what fedloom wrote"):
        Manifest.read(path.parent)


def test_a_cut_that_does_not_fit_writes_nothing(tmp_path):
    with pytest.raises(ConfigError, match="found 3:3 of a model of 6 blocks"):
        partition(str(folder()), Cut(3, 3), tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_a_filled_folder_is_left_alone(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine").write_text("kept")
    with pytest.raises(RunError, match="choose another folder"):
        partition(str(folder()), Cut(1, 1), tmp_path / "parts")
    assert (tmp_path / "parts" / "mine").read_text() == "kept"


def test_a_model_of_other_names_is_refused(tmp_path):
    source = folder()
    copy = tmp_path / "model"
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    whole = load_file(copy / "model.safetensors")
    save_file(whole | {"model.adapter.weight": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(ModelError, match=r"'model\.adapter\.weight' belongs to no part that is known"):
        partition(str(copy), Cut(1, 1), tmp_path / "parts")
