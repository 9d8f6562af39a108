"""A model of ours through CTranslate2: the same greedy answers, converted once, known by what it is."""

import json

import pytest
import torch

from fedloom.base.errors import ConfigError
from fedloom.completers.ctranslate2 import CTranslate2
from fedloom.completers.model import LocalModel
from fedloom.contracts.evaluation import Sampling
from fedloom.contracts.examples import Turn
from fedloom.models.causal_lm import CausalLM
from fedloom.world import World

PROMPTS = [(Turn("user", example.prompt[-1].text),) for example in World(0).test("public")[:12]]


def answers(completer, prompts=PROMPTS, **sampling):
    with completer.opened() as answer:
        found = dict(answer(prompts, Sampling(**{"max_new_tokens": 12} | sampling)))
    return [found[place] for place in range(len(prompts))]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The embedded model, converted once."""
    return CTranslate2(cache=str(tmp_path_factory.mktemp("converted")))


def test_greedy_answers_are_those_of_our_own_model(converted):
    assert answers(converted) == answers(LocalModel())


def test_an_adapter_is_part_of_the_model(tmp_path, converted):
    family = CausalLM()
    model = family.build(seed=0, device=torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    moved = {n: t + 0.05 * torch.randn(t.shape, generator=draw) for n, t in model.trainable.items()}
    family.save(model, moved, str(tmp_path / "adapter"))
    adapted = CausalLM.for_adapter(tmp_path / "adapter")
    found = answers(CTranslate2(adapter=str(tmp_path / "adapter")))
    assert found == answers(LocalModel(model=adapted)) != answers(converted)


def test_drawn_answers_depend_on_prompt_and_seed_alone(converted):
    drawn = {"temperature": 1.0, "seed": 3, "max_new_tokens": 6}
    together = answers(converted, **drawn)
    assert answers(converted, PROMPTS[::-1], **drawn)[::-1] == together
    assert answers(converted, **drawn | {"seed": 4}) != together


def test_a_stop_text_ends_an_answer(converted):
    whole = answers(converted, PROMPTS[:1])[0].text
    assert answers(converted, PROMPTS[:1], stop=(whole[2:4],))[0].text == whole[:2].strip()


def test_a_converted_model_is_kept_under_what_it_is(tmp_path):
    first = answers(CTranslate2(cache=str(tmp_path)))
    (kept,) = tmp_path.iterdir()
    before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert answers(CTranslate2(cache=str(tmp_path))) == first
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == before


def test_eight_bits_are_another_completer():
    known = [json.loads(CTranslate2(compute=kind).identity()) for kind in ("float32", "int8")]
    assert known[0] != known[1]
    assert len(answers(CTranslate2(compute="int8"))) == len(PROMPTS)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(__import__("sys").modules, "ctranslate2", raising=False)
    with pytest.raises(ConfigError, match=r"pip install fedloom\[ctranslate2\]"):
        CTranslate2().require()
