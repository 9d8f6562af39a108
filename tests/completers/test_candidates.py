"""Whose answers are examined: what lies in folders, and models in memory."""

import pytest
import torch

from fedloom import api
from fedloom.base.errors import MissingFileError
from fedloom.base.plugin import lookup
from fedloom.completers.candidates import BuiltModel, candidate
from fedloom.contracts.federated import Template
from fedloom.models.causal_lm import CausalLM
from fedloom.runs.export import export
from support.asking import answers, local, prompts
from support.models import model_folder
from support.small_runs import small_run, write_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small model and the records of a small run."""
    made = tmp_path_factory.mktemp("candidates")
    model_folder(made / "model")
    write_records(made / "data.jsonl")
    return made


def test_a_built_model_answers_as_the_one_that_is_loaded(folder):
    built = CausalLM(path=str(folder / "model"), lora_rank=2).build(seed=0, device=torch.device("cpu"))
    completer = BuiltModel(model=built, params=built.trainable, template=lookup(Template, "vicuna")())
    assert answers(completer, prompts("w3 w4", "w9")) == answers(local(folder), prompts("w3 w4", "w9"))


def test_other_parameters_are_another_completer(folder):
    built = CausalLM(path=str(folder / "model"), lora_rank=2).build(seed=0, device=torch.device("cpu"))
    own = {"model": built, "template": lookup(Template, "vicuna")()}
    moved = {name: tensor + 1 for name, tensor in built.trainable.items()}
    assert BuiltModel(params=built.trainable, **own).identity() != BuiltModel(params=moved, **own).identity()


# ------------------------------------------------------------------------------------------------- what lies in folders


@pytest.fixture(scope="module")
def finished(folder):
    """A finished run of two rounds beside its model, with moved adapters."""
    run = small_run(folder, rounds=2)
    for _ in api.start(run, folder / "run"):
        pass
    return folder / "run"


def tuned(folder, finished):
    """The completer of the run's result, put together by hand."""
    model = CausalLM(path=str(folder / "model"), lora_rank=2, lora_alpha=4.0, adapter=str(finished / "adapter"))
    return local(folder, model=model)


QUESTIONS = prompts("w3 w4 w5", "w9", "w12 w13")


def test_a_run_directory_answers_with_its_result_in_its_template(folder, finished):
    assert answers(candidate(finished), QUESTIONS) == answers(tuned(folder, finished), QUESTIONS)


def test_the_adapter_of_a_run_is_asked_in_the_template_of_the_run(finished):
    assert candidate(finished / "adapter").identity() == candidate(finished).identity()


def test_an_exported_model_answers_like_the_run(finished, tmp_path):
    export(finished, tmp_path / "merged", form="merged")
    merged = candidate(tmp_path / "merged", template=lookup(Template, "vicuna")())
    assert answers(merged, QUESTIONS) == answers(candidate(finished), QUESTIONS)


def test_a_run_that_trained_the_whole_model_is_asked(folder, tmp_path):
    run = small_run(folder, rounds=1, model={"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 0})
    for _ in api.start(run, tmp_path / "run"):
        pass
    expected = local(folder, model=CausalLM(path=str(tmp_path / "run" / "adapter"), lora_rank=2))
    assert answers(candidate(tmp_path / "run"), QUESTIONS) == answers(expected, QUESTIONS)


def test_a_run_of_many_results_asks_for_one_of_them(folder, tmp_path):
    for _ in api.start(small_run(folder, rounds=1, protocol="local_only"), tmp_path / "run"):
        pass
    with pytest.raises(MissingFileError, match=r"one for each of 4 clients; name one of them, such as .*client0"):
        candidate(tmp_path / "run")
    assert candidate(tmp_path / "run" / "adapters" / "client0").template.name == "vicuna"


def test_a_folder_without_a_result_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="neither a run directory with a result, nor an adapter, nor a model"):
        candidate(tmp_path)
