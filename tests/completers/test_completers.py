"""Who answers prompts: a model of ours, a stand-in for vLLM, a list."""

import importlib.machinery
import json
import re
import sys
import types
from dataclasses import dataclass

import pytest
import torch

from fedloom.base import config
from fedloom.base.errors import CompletionError, ConfigError, DataError, MissingFileError
from fedloom.base.plugin import lookup, names
from fedloom.completers.canned import Canned
from fedloom.completers.model import LocalModel
from fedloom.completers.vllm import Vllm
from fedloom.contracts.evaluation import Completer
from fedloom.contracts.examples import Turn, chat
from fedloom.contracts.federated import Template
from fedloom.models.causal_lm import CausalLM
from fedloom.tasks.sft import Sft
from support.asking import SHORT, answers, asked_in, local, prompts
from support.models import model_folder

# -------------------------------------------------------------------------------------------------------- a fixed list


def test_canned_file_nested_without_end_is_refused(tmp_path):
    (tmp_path / "answers.jsonl").write_text("[" * 200_000)
    with pytest.raises(DataError, match="line 1 is no answer"):
        answers(Canned(path=str(tmp_path / "answers.jsonl")), prompts("a"))


def test_a_listed_prompt_gets_its_answer():
    assert answers(Canned(answers={"who?": "the baker"}), prompts("who?")) == ["the baker"]


def test_patterns_answer_in_their_order_what_is_not_listed():
    canned = Canned(answers={"a1": "listed"}, patterns={r"a\d": "first", ".": "second"})
    assert answers(canned, prompts("a1", "a2", "b")) == ["listed", "first", "second"]


def test_a_prompt_without_an_answer_is_refused():
    with pytest.raises(CompletionError, match="canned: no answer is listed for the prompt 'when"):
        answers(Canned(answers={"who?": "the baker"}), prompts("when?"))


def test_answers_come_from_a_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "who?", "text": "the baker"}\n\n')
    assert answers(Canned(path=str(tmp_path / "a.jsonl")), prompts("who?")) == ["the baker"]


def test_a_file_of_kept_answers_is_replayed(tmp_path):
    asked_in(tmp_path, Canned(patterns={".": "recorded"}), "who?", "when?")
    replay = Canned(path=str(tmp_path / "answers.jsonl"))
    assert answers(replay, prompts("when?", "who?")) == ["recorded", "recorded"]


def test_a_recorded_conversation_answers_no_other_one_that_ends_alike(tmp_path):
    asked_in(tmp_path, Canned(patterns={".": "recorded"}), "who?")
    with pytest.raises(CompletionError, match="no answer is listed"):
        answers(Canned(path=str(tmp_path / "answers.jsonl")), [(Turn("system", "brief"), Turn("user", "who?"))])


@pytest.mark.parametrize(
    "line", ["[1]", "{", '{"prompt": "a"}', '{"prompt": 1, "text": "b"}', '{"prompt": "a", "text": 1}']
)
def test_a_malformed_file_is_refused_by_its_line(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "a", "text": "b"}}\n{line}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: line 2 .*allowed are lines like"):
        answers(Canned(path=str(tmp_path / "a.jsonl")), prompts("a"))


def test_two_answers_to_one_prompt_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "text": "b"}\n{"prompt": "a", "text": "c"}\n')
    with pytest.raises(DataError, match="line 2 answers a prompt in another way than before"):
        answers(Canned(path=str(tmp_path / "a.jsonl")), prompts("a"))


def test_a_missing_file_of_answers_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no such file of answers"):
        Canned(path=str(tmp_path / "none.jsonl")).identity()


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "\xe9", "text": "b"}\n')
    with pytest.raises(DataError, match="is no UTF-8 text"):
        Canned(path=str(tmp_path / "a.jsonl")).identity()


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"patterns: '\(' is no regular expression"):
        Canned(patterns={"(": "a"})


@pytest.mark.parametrize(
    "other", [{"answers": {"a": "c"}}, {"patterns": {"a": "b"}}, {"patterns": {"b": "1", "a": "2"}}]
)
def test_a_list_of_other_answers_is_known_by_another_name(other):
    known = [Canned(**fields).identity() for fields in ({"answers": {"a": "b"}}, {"patterns": {"a": "2", "b": "1"}})]
    assert Canned(**other).identity() not in known


# ------------------------------------------------------------------------------------------------------ a model of ours


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small model of a context of 64 tokens."""
    made = tmp_path_factory.mktemp("completers")
    model_folder(made / "model")
    return made


def test_a_model_answers_as_its_task_predicts(folder):
    questions = [f"w{number} w7" for number in range(3, 12)]
    model = CausalLM(path=str(folder / "model")).build(seed=0, device=torch.device("cpu"))
    task = Sft(template=lookup(Template, "vicuna")())
    (expected,) = task.predict(model, model.trainable, [[chat(text, "w3") for text in questions]], max_new_tokens=8)
    assert answers(local(folder, batch=4), prompts(*questions)) == [one.text for one in expected]


def test_the_embedded_model_answers_by_default():
    assert answers(LocalModel(), prompts("Say hi."))[0]


def test_a_prompt_beyond_the_context_is_refused_for_good_and_stops_no_other(folder, tmp_path):
    alone = asked_in(tmp_path / "alone", local(folder), "w3", "w5")
    assert asked_in(tmp_path, local(folder), "w3", "w4 " * 100, "w5") == [alone[0], "", alone[1]]


def test_a_prompt_beyond_the_context_is_kept_with_the_reason(folder, tmp_path):
    asked_in(tmp_path, local(folder), "w4 " * 100)
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert re.fullmatch(r"1\d\d tokens, where the model takes fewer than 64", json.loads(line)["refused"])


def test_a_refusal_is_replayed_from_a_file_of_answers(folder, tmp_path):
    asked_in(tmp_path, local(folder), "w4 " * 100)
    with Canned(path=str(tmp_path / "answers.jsonl")).opened() as answer:
        [(_, found)] = answer(prompts("w4 " * 100), SHORT)
    assert "tokens, where the model takes fewer" in found.refused


def test_the_same_model_elsewhere_is_the_same_completer(folder, tmp_path):
    moved = model_folder(tmp_path / "elsewhere" / "model").parent
    assert local(folder).identity() == local(moved).identity()


def test_the_identity_names_no_folder(folder):
    assert str(folder) not in local(folder).identity()


def changed_models(folder, tmp_path):
    other = model_folder(tmp_path / "other" / "model", seed=1).parent
    dressed = model_folder(tmp_path / "dressed" / "model").parent
    (dressed / "model" / "chat_template.jinja").write_text("{{ messages }}")
    model = CausalLM(path=str(folder / "model"), lora_rank=2)
    built = model.build(seed=0, device=torch.device("cpu"))
    model.save(built, {name: tensor + 1 for name, tensor in built.trainable.items()}, str(tmp_path / "adapter"))
    adapted = CausalLM(path=str(folder / "model"), lora_rank=2, adapter=str(tmp_path / "adapter"))
    return {
        "weights": local(other),
        "chat template": local(dressed),
        "template": local(folder, template=lookup(Template, "alpaca")()),
        "adapter": local(folder, model=adapted),
        "number type": local(folder, model=CausalLM(path=str(folder / "model"), lora_rank=2, dtype="float16")),
    }


@pytest.mark.parametrize("change", ["weights", "chat template", "template", "adapter", "number type"])
def test_another_model_is_another_completer(folder, tmp_path, change):
    assert changed_models(folder, tmp_path)[change].identity() != local(folder).identity()


def test_a_template_file_is_known_by_what_it_says(folder, tmp_path):
    texts = ('user = "{text}\\n"\nassistant = "A: {text}"\n', 'user = "Q: {text}\\n"\nassistant = "A: {text}"\n')
    found = []
    for text in texts:
        (tmp_path / "template.toml").write_text(text)
        template = lookup(Template, "file")(path=tmp_path / "template.toml")
        found.append(local(folder, template=template).identity())
    assert found[0] != found[1]


def test_identity_is_told_without_a_model_being_built(folder, monkeypatch):
    monkeypatch.setattr(CausalLM, "build", None)
    assert local(folder).identity()


def test_a_device_that_is_not_there_is_refused(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: found 'cuda', but no CUDA device is there"):
        answers(local(folder, device="cuda"), prompts("w3"))


# ---------------------------------------------------------------------------------------------------------------- vllm


@pytest.fixture
def stand_in(monkeypatch, folder):
    """A module in the place of vllm, with the names and arguments that its documentation gives."""
    made = types.ModuleType("vllm")
    lora = types.ModuleType("vllm.lora.request")
    made.seen = seen = {}

    class LLM:
        def __init__(self, model, enable_lora, max_lora_rank, gpu_memory_utilization, trust_remote_code):
            seen["engine"] = (model, enable_lora, max_lora_rank, gpu_memory_utilization, trust_remote_code)
            self.model = CausalLM(path=model).build(seed=0, device=torch.device("cpu"))

        def get_tokenizer(self):
            return self.model.tokenizer

        def generate(self, prompts, sampling_params, lora_request, use_tqdm):
            seen["asked"], seen["params"], seen["lora"] = prompts, sampling_params, lora_request
            output = types.SimpleNamespace(text=" w3 w4", token_ids=[3, 4, 2])
            return [
                types.SimpleNamespace(outputs=[output], prompt_token_ids=one["prompt_token_ids"]) for one in prompts
            ]

    made.LLM, made.SamplingParams = LLM, lambda **options: options
    lora.LoRARequest = lambda name, number, path: (name, number, path)
    for module in (made, lora):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def vllm_of(folder, **fields):
    return Vllm(**{"path": str(folder / "model"), "template": lookup(Template, "vicuna")()} | fields)


def test_vllm_answers(folder, stand_in):
    assert answers(vllm_of(folder), prompts("w5", "w6")) == ["w3 w4", "w3 w4"]


def test_vllm_is_asked_in_the_tokens_of_the_template(folder, stand_in):
    answers(vllm_of(folder), prompts("w5"))
    with local(folder).opened() as answer:
        [(_, expected)] = answer(prompts("w5"), SHORT)
    assert len(stand_in.seen["asked"][0]["prompt_token_ids"]) == expected.prompt_tokens


def test_vllm_stops_at_the_end_of_the_template(folder, stand_in):
    answers(vllm_of(folder), prompts("w5"))
    assert stand_in.seen["params"][0]["stop_token_ids"] == [2]


def test_vllm_takes_the_adapter(folder, stand_in):
    answers(vllm_of(folder, adapter="an/adapter"), prompts("w5"))
    assert stand_in.seen["lora"] == ("adapter", 1, "an/adapter")


def test_vllm_gives_every_prompt_a_seed_of_its_own(folder, stand_in):
    answers(vllm_of(folder), prompts("w5", "w6", "w5"))
    first, second, third = (one["seed"] for one in stand_in.seen["params"])
    assert first == third != second


def test_vllm_without_the_library_is_refused(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"needs vllm, which is not installed; pip install fedloom\[vllm\]"):
        answers(vllm_of(folder), prompts("w5"))


def test_vllm_without_a_model_is_refused():
    with pytest.raises(ConfigError, match="vllm: path: missing; name the folder or hub name"):
        Vllm()


# ------------------------------------------------------------------------------------------------------------ all alike


def some(name, folder):
    fields = {
        "openai": {"url": "http://host/v1", "model": "judge"},
        "vllm": {"path": str(folder / "model")},
        "model": {"model": CausalLM(path=str(folder / "model"))},
    }
    return lookup(Completer, name)(**fields.get(name, {}))


@dataclass(frozen=True)
class Holder:
    judge: Completer


@pytest.mark.parametrize("name", names(Completer))
def test_a_completer_is_the_same_after_a_run_file(folder, name):
    holder = Holder(some(name, folder))
    assert config.build(Holder, config.parse(config.dump(holder), "")) == holder


@pytest.mark.parametrize("name", names(Completer))
def test_a_completer_has_the_same_identity_twice(folder, name):
    assert some(name, folder).identity() == some(name, folder).identity()
