"""The frame is as wide as it says: learning from numbers, without a token, under every engine, rule, codec, optimiser
of the server and mechanism, and every arrangement, from a run file to a run directory.
"""

import numpy as np
import pytest
import torch

from fedloom import api
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import names
from fedloom.benchmark.page.page import write_report
from fedloom.contracts.federated import Codec, Engine, Rule, ServerOpt
from fedloom.federated.kernels import client_gradients, example_gradients
from fedloom.results.outcome import outcome
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import read_run
from support import numbers
from support.command import fedloom
from support.tools import tool

pytestmark = pytest.mark.slow

TABLE = numbers.TABLE | {
    "rounds": 8,
    "local": {"steps": 5, "batch": 4, "lr": 0.1, "schedule": "constant", "optimiser": "sgd", "clip_norm": 0.0},
    "evaluation": {"metrics": [], "resamples": 50},
}
PRIVATE = {"name": "gaussian", "noise_multiplier": 0.3, "epsilon": 0.0, "delta": 0.01}


def losses(folder, **changes):
    """Test losses before and after a run of the table with these changes."""
    list(api.start(read_run(TABLE | changes), folder))
    found = outcome(RunDirectory.open(folder)).results
    test = {phase: [one for one in scored if one.set == "test"] for phase, scored in found.items()}
    return [sum(one.scores["loss"].value for one in test[phase]) / len(test[phase]) for phase in ("base", "final")]


def test_numbers_are_learnt(tmp_path):
    before, after = losses(tmp_path / "run")
    assert before > 3 and after < 0.05


CHOICES = {
    # Ray has an environment of its own (tests/carriers).
    **{f"engine {name}": {"engine": name} for name in names(Engine) if name != "ray"},
    **{f"rule {name}": {"rule": name} for name in names(Rule)},
    **{
        f"codec {name}": {"codec": {"name": name} | ({"share": 0.5} if name == "top_k" else {})}
        for name in names(Codec)
    },
    **{
        f"server_opt {name}": {"server_opt": {"name": name, "lr": 1.0 if name == "sgd" else 0.5}}
        for name in names(ServerOpt)
    },
    **{
        f"privacy {unit}": {"privacy": PRIVATE | {"unit": unit}, "weighting": "uniform"}
        for unit in ("example", "client", "client_local")
    },
    **{f"protocol {name}": {"protocol": name} for name in ("federated", "local_only", "centralised")},
    "protocol clustered": {"protocol": {"name": "clustered", "by": "client"}},
    "kept moments": {"local": TABLE["local"] | {"optimiser": "adamw", "optimiser_state": "kept", "lr": 0.05}},
    "a private parameter": {"share": "weight"},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_numbers_are_learnt_under(choice, tmp_path):
    before, after = losses(tmp_path / "run", **CHOICES[choice])
    assert after < 0.6 * before


@pytest.mark.parametrize("sizes", [(4, 4), (4, 3), (1, 1)])
def test_gradients_of_clients_are_those_of_the_formula(sizes):
    model, task = numbers.Line().build(seed=1, device=torch.device("cpu")), numbers.Regress()
    parts = [
        [torch.randn(4, generator=torch.Generator().manual_seed(10 * k + i)) for i in range(n)]
        for k, n in enumerate(sizes)
    ]
    leaves = {name: torch.stack([tensor, tensor + 1]).requires_grad_() for name, tensor in model.trainable.items()}
    found = client_gradients(model, task, leaves, parts).sum_KP
    for k, part in enumerate(parts):
        rows = torch.stack(part).double()
        x, y = rows[:, :3], rows[:, 3]
        weight, bias = leaves["weight"][k].detach().double()[0], leaves["bias"][k].detach().double()
        slope = 2 * (x @ weight + bias - y)
        right = torch.cat([(slope[:, None] * x).sum(0), slope.sum()[None]])
        np.testing.assert_allclose(found[k].numpy(), right.numpy(), rtol=1e-4, atol=1e-5)


def test_gradients_of_examples_are_clipped_one_by_one():
    model, task = numbers.Line().build(seed=1, device=torch.device("cpu")), numbers.Regress()
    parts = [[torch.tensor([1.0, 2.0, 3.0, 40.0]), torch.tensor([0.0, 0.0, 0.0, 0.1])]]
    leaves = {name: tensor[None].clone().requires_grad_() for name, tensor in model.trainable.items()}
    total, scales = example_gradients(
        model, task, leaves, parts, lambda norms: (1 / norms.norm(dim=0)).clamp(max=1).expand_as(norms)
    )
    assert scales.shape == (2, 2) and total.norm() < 2 and float(scales[0, 0]) < 0.1


def test_a_run_on_numbers_is_shown_compared_and_has_a_page(tmp_path, monkeypatch, capsys):
    for name, protocol in (("one", "federated"), ("other", "local_only")):
        losses(tmp_path / name, protocol=protocol)
    assert fedloom(monkeypatch, "show", tmp_path / "one") == 0
    assert fedloom(monkeypatch, "compare", tmp_path / "one", tmp_path / "other") == 0
    assert "loss" in capsys.readouterr().out
    assert "test" in write_report(tmp_path / "one", tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_a_killed_run_on_numbers_goes_on_to_the_same_bytes(tmp_path):
    changes = {"rule": "scaffold", "share": "weight", "local": TABLE["local"] | {"optimiser_state": "kept"}}
    run = read_run(TABLE | changes)
    list(api.start(run, tmp_path / "whole" / "run"))
    events = api.start(run, tmp_path / "broken" / "run")
    for _ in range(5):
        next(events)
    events.close()
    list(api.resume(tmp_path / "broken" / "run")[1])
    assert not list(tool("same_runs").differences(tmp_path / "whole" / "run", tmp_path / "broken" / "run"))


def test_a_task_of_another_kind_of_model_is_refused(tmp_path):
    run = read_run(TABLE | {"task": "sft", "data": {"name": "world", "n_clients": 2}})
    with pytest.raises(ConfigError, match=r"task.name: task 'sft' trains a LanguageModel, model 'line' is a Model"):
        list(api.start(run, tmp_path / "run"))


def test_examples_of_another_kind_are_refused(tmp_path):
    run = read_run(TABLE | {"data": {"name": "world", "n_clients": 2}})
    with pytest.raises(DataError, match="task 'regress' learns from Point examples"):
        list(api.start(run, tmp_path / "run"))
