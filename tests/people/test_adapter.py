"""The frame carries the field without a special case: rules, aggregators, privacy, codecs, private parts, resuming."""

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import fedloom
from fedloom.base.errors import ConfigError, DataError, MissingFileError, ModelError
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Aggregator, Codec, ModelFamily, Rule, ServerOpt
from fedloom.people.field import Field
from fedloom.people.photometric import losses
from fedloom.runs.prepared import prepare
from support.people_runs import STUDIOS, people_run
from support.plugins import shipped


def started(folder, **changes):
    return list(fedloom.start(people_run(**changes), folder))


def started_small(folder, **changes):
    """A round of little pictures, of which nothing is measured."""
    small = {"rounds": 1, "data": {"name": "capsule_people", "size": 32, "bundles": 1, "tested": False}}
    task = {"task": {"name": "photometric", "rays": 16}}
    return started(folder, **small | task | {"local": {"lr": 2e-3, "steps": 1, "batch": 1}} | changes)


def field_of(folder):
    return load_file(Path(folder) / "adapter" / "field.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "run"
    started(folder)
    return folder


def test_nothing_leaves_a_studio_but_48275_named_numbers(plain):
    """No picture, no body, nothing that grows with people, views or pixels."""
    own = {name: tuple(one.shape) for name, one in Field().named_parameters()}
    assert {name: tuple(tensor.shape) for name, tensor in field_of(plain).items()} == own
    sent = [json.loads(line) for line in (plain / "ledger.jsonl").read_text().splitlines()]
    rows = [line for line in sent if "bytes" in line]
    assert {line["bytes"] for line in rows} == {4 * 48_275} and len(rows) == 2 * STUDIOS
    assert {line["what"] for line in rows} == {"row (delta), weight, training loss"}


def test_every_result_stands_beside_the_hulls(plain):
    told = [json.loads(line) for line in (plain / "metrics.jsonl").read_text().splitlines()]
    final = {line["name"]: line["total"] / line["weight"] for line in told if line["phase"] == "final"}
    names_ = ("chamfer_cm", "acc_cm", "comp_cm", "hull_chamfer_cm", "hull_acc_cm", "hull_comp_cm", "floor_cm")
    assert all(f"test/{name}" in final for name in names_)
    assert final["test/floor_cm"] < 0.01 < final["test/hull_chamfer_cm"]
    base = {line["name"]: line["total"] / line["weight"] for line in told if line["phase"] == "base"}
    assert abs(base["test/chamfer_cm"] - base["test/hull_chamfer_cm"]) < 0.05  # training starts there


@pytest.mark.parametrize("rule", sorted(set(shipped(Rule)) - {"plain"}))
def test_every_rule_trains_it(rule, plain, tmp_path):
    started_small(tmp_path / "run", rule=rule)
    assert field_of(tmp_path / "run").keys() == field_of(plain).keys()


@pytest.mark.slow
def test_prox_without_its_term_is_fedavg(plain, tmp_path):
    started(tmp_path / "run", rule={"name": "prox", "mu": 0.0})
    assert equal(field_of(tmp_path / "run"), field_of(plain))


@pytest.mark.slow
@pytest.mark.parametrize("server_opt", sorted(set(shipped(ServerOpt)) - {"sgd"}))
def test_every_server_optimiser_trains_it(server_opt, tmp_path):
    started_small(tmp_path / "run", server_opt={"name": server_opt, "lr": 0.01})


@pytest.mark.slow
@pytest.mark.parametrize("codec", sorted(set(shipped(Codec)) - {"float32"}))
def test_every_codec_carries_it(codec, tmp_path):
    started_small(tmp_path / "run", codec=codec)


REFUSED = {
    "lora_stack": "adapters",
    "lora_svd": "adapters",
    "residual": "adapters",
    "fltrust": "root",
    "probe": "prompts",
    "update_classifier": "file",
}
"""Aggregators of low-rank factors, of which a field has none, and those that ask for what these runs do not give."""


@pytest.mark.slow
@pytest.mark.parametrize("aggregator", sorted(set(shipped(Aggregator)) - {"mean"}))
def test_every_aggregator_takes_it_or_says_why_not(aggregator, tmp_path):
    own = lookup(Aggregator, aggregator)
    few = {"f": 0} if "f" in own.__dataclass_fields__ else {}
    changes = {"aggregator": {"name": aggregator, **few}, "weighting": "uniform"}
    if aggregator in REFUSED:
        with pytest.raises(ConfigError):
            started_small(tmp_path / "run", **changes)
        return
    started_small(tmp_path / "run", **changes)
    assert all(torch.isfinite(tensor).all() for tensor in field_of(tmp_path / "run").values())


@pytest.mark.slow
def test_clients_train_as_a_plain_loop_does(tmp_path):
    """An oracle without the frame: gradient steps by torch on the same bundles."""
    data = {"name": "capsule_people", "size": 32, "bundles": 1, "tested": False}
    local = {"lr": 1e-2, "steps": 1, "batch": 15, "schedule": "constant", "clip_norm": 0.0, "optimiser": "sgd"}
    run = people_run(protocol="centralised", rounds=1, local=local, data=data)
    ready = prepare(run)
    list(fedloom.start(run, tmp_path / "run"))
    field = Field()
    own = dict(field.named_parameters())
    with torch.no_grad():
        for name, tensor in ready.model.trainable.items():
            own[name].copy_(tensor)
    bundles = [item for shard in ready.shards.values() for item in shard.items]
    for _ in range(ready.stages[0].plan.local.steps):
        loss = torch.stack([losses(field, bundle, run.task.weights).total for bundle in bundles]).mean()
        slopes = torch.autograd.grad(loss, list(own.values()))
        with torch.no_grad():
            for parameter, slope in zip(own.values(), slopes, strict=True):
                parameter -= 1e-2 * slope
    trained = field_of(tmp_path / "run")
    moved = max((own[name] - ready.model.trainable[name]).abs().max().item() for name in own)
    assert moved > 1e-4 and max((trained[name] - own[name]).abs().max().item() for name in own) < 1e-2 * moved


@pytest.mark.slow
def test_colours_of_cameras_stay_with_their_studio(plain, tmp_path):
    table = {"model": {"name": "person_field", "cameras": 5}, "share": "^(?!cameras)"}
    started(tmp_path / "run", **table)
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert {line["bytes"] for line in lines if "bytes" in line} == {4 * 48_275}
    own = sorted((tmp_path / "run" / "adapters").iterdir())
    assert len(own) == STUDIOS and all(
        load_file(one / "field.safetensors").keys() == field_of(plain).keys() for one in own
    )
    colours = [load_file(one / "cameras.safetensors")["cameras"] for one in own]
    assert not torch.equal(colours[0], colours[1]) and not torch.equal(colours[0], torch.eye(3, 4).repeat(5, 1, 1))
    family = lookup(ModelFamily, "person_field")(path=str(own[0]), cameras=5)
    assert torch.equal(family.build(seed=3, device=torch.device("cpu")).trainable["cameras"], colours[0])


@pytest.mark.parametrize(
    "privacy",
    [
        {
            "privacy": {
                "name": "gaussian",
                "unit": "client",
                "clip": 0.5,
                "epsilon": 0.0,
                "noise_multiplier": 1.0,
                "delta": 1e-4,
            }
        },
        {
            "privacy": {
                "name": "gaussian",
                "unit": "example",
                "clip": 0.5,
                "epsilon": 0.0,
                "noise_multiplier": 1.0,
                "delta": 1e-4,
            }
        },
        {"aggregator": {"name": "secure_sum"}},
    ],
)
@pytest.mark.slow
def test_privacy_and_secure_sums_take_it(privacy, tmp_path):
    started_small(tmp_path / "run", weighting="uniform", **privacy)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "epsilon" in report or "secure_sum" in (tmp_path / "run" / "run.toml").read_text()


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_bytes(plain, tmp_path):
    events = fedloom.start(people_run(), tmp_path / "run")
    list(islice(events, 3))  # a note, what came before, a round
    events.close()
    _, rest = fedloom.resume(tmp_path / "run")
    list(rest)
    assert (tmp_path / "run" / "adapter" / "field.safetensors").read_bytes() == (
        plain / "adapter" / "field.safetensors"
    ).read_bytes()


def test_a_trained_field_is_gone_on_from(plain, tmp_path):
    family = lookup(ModelFamily, "person_field")
    again = family(path=str(plain / "adapter")).build(seed=9, device=torch.device("cpu"))
    assert equal(again.trainable, field_of(plain))
    assert family(path=str(plain / "adapter")).lineage()  # its training is not forgotten
    with pytest.raises(MissingFileError, match=r"found no field.safetensors in .*; give a run's folder 'adapter'"):
        family(path=str(tmp_path)).build(seed=0, device=torch.device("cpu"))
    shutil.copytree(plain / "adapter", tmp_path / "odd")
    save_file(field_of(plain) | {"betas": torch.zeros(10)}, tmp_path / "odd" / "field.safetensors")
    with pytest.raises(ModelError, match="tensor 'betas' does not fit the field"):
        family(path=str(tmp_path / "odd")).build(seed=0, device=torch.device("cpu"))


@pytest.mark.slow
def test_answers_are_not_asked_of_it(tmp_path):
    with pytest.raises(DataError, match=r"evaluation.metrics: a field writes no answers, allowed is \[\]"):
        started(tmp_path / "run", evaluation={"metrics": ["exact_match"], "holdout": 0.0})


def test_other_models_and_tasks_are_refused_beside_it():
    with pytest.raises(
        ConfigError, match="task 'classify' trains a ClassifierModel, model 'person_field' is a FieldModel"
    ):
        prepare(people_run(task={"name": "classify"}))
