"""Split training as a protocol of the frame: run file, rounds, ledger, resume, result, and what is refused with it."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import ConfigError, ModelError
from fedloom.federated.rounds import begin, step
from fedloom.models.causal_lm import CausalLM
from fedloom.runs.measure import models_of
from fedloom.runs.prepared import prepare
from support.models import model_folder
from support.resuming import adapters, kill_and_resume, logs, run_to_the_end
from support.small_runs import small_run, train, write_records


@pytest.fixture
def made(tmp_path):
    model_folder(tmp_path / "model", num_hidden_layers=5)
    write_records(tmp_path / "data.jsonl")
    return tmp_path


def run_of(folder, *, clients=4, **changes):
    protocol = {"name": "split", "wire": "float32"} | changes.pop("protocol", {})
    local = {"lr": 0.02, "steps": 2, "batch": 3, "optimiser_state": "kept"} | changes.pop("local", {})
    return small_run(folder, protocol=protocol, local=local, **changes)


def final(run):
    """The models after training in memory, by owner."""
    ready = prepare(run)
    run = run.protocol.carried_by(run.engine)
    state, records = train_with(ready, run)
    return dict(models_of(ready, state, ready.stages[0])), state, records


def train_with(ready, engine):
    stage = ready.stages[0]
    carrier, state, records = engine.start(stage.work), begin(stage.plan, ready.layout.row({"": ready.shared})), []
    for _ in range(ready.run.rounds):
        state, record = step(stage.plan, state, carrier)
        records.append(record)
    return state, records


ONE = {"instruction": "w5 w6 w7", "output": "w8 w9", "owner": "a"}


def test_one_client_with_full_batches_and_plain_steps_is_the_uncut_federation(made):
    """The server's step and the client's are then one step of the uncut model: no clip, no moments."""
    lines = [ONE | {"output": f"w{9 + at} w{20 + at}"} for at in range(4)]
    (made / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"name": "file", "path": str(made / "data.jsonl"), "form": "alpaca", "tags": {"client": "owner"}}
    shared = {"data": data, "evaluation": {"holdout": 0.0, "metrics": []}}
    local = {"optimiser": "sgd", "clip_norm": 0.0, "batch": 4, "lr": 0.5}
    found, _, _ = final(run_of(made, local=local, **shared))
    plain = small_run(made, local={"steps": 2} | local, **shared)
    ready = prepare(plain)
    state, _ = train(plain, ready=ready)
    wanted = ready.layout.tree(state.params_P)
    assert found[""].keys() == wanted.keys()
    largest = max(float(one.abs().max()) for one in wanted.values())
    assert all(float((found[""][name] - one).abs().max()) <= 1e-6 * largest for name, one in wanted.items())


def test_fed_sgd_with_full_batches_is_centralised_sgd(made):
    """One step a round, rows weighing by tokens, no clip: client parts and middle move along the pooled gradient."""
    shared = {"evaluation": {"holdout": 0.0, "metrics": []}, "rounds": 2}
    local = {"optimiser": "sgd", "clip_norm": 0.0, "steps": 1, "lr": 0.5, "optimiser_state": "fresh"}
    run = run_of(made, local=local | {"batch": 6}, weighting="tokens", **one_size(made), **shared)
    found, _, _ = final(run)
    pooled = small_run(made, protocol="centralised", local=local | {"batch": 24}, **one_size(made), **shared)
    ready = prepare(pooled)
    stage = ready.stages[0]
    one = pooled.local.steps
    assert stage.plan.local.steps == 4 * one  # as many as all clients take; FedSGD takes one for all
    plan = replace(stage.plan, local=replace(stage.plan.local, steps=1))
    carrier = pooled.engine.start(replace(stage.work, plan=plan))
    state = begin(plan, ready.layout.row({"": ready.shared}))
    for _ in range(2):
        state, _ = step(plan, state, carrier)
    wanted = ready.layout.tree(state.params_P)
    largest = max(float(one.abs().max()) for one in wanted.values())
    assert all(float((found[""][name] - one).abs().max()) <= 1e-6 * largest for name, one in wanted.items())


def one_size(made):
    """Data of four clients with six records each, unequal in tokens."""
    write_records(made / "same.jsonl", clients=4, records=6)
    lines = (made / "same.jsonl").read_text().splitlines()
    kept, counts = [], {}
    for line in lines:
        owner = json.loads(line)["owner"]
        counts[owner] = counts.get(owner, 0) + 1
        kept += [line] * (counts[owner] <= 6)
    (made / "same.jsonl").write_text("\n".join(kept) + "\n")
    tags = {"client": "owner"}
    return {"data": {"name": "file", "path": str(made / "same.jsonl"), "form": "alpaca", "tags": tags}}


def test_clients_that_are_never_merged_keep_ends_of_their_own_and_share_the_middle(made):
    models, state, _ = final(run_of(made, protocol={"ends": "own"}))
    assert state.params_P.numel() == 0
    first, second = models["client0"], models["client1"]
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert {int(name.split(".")[2]) for name in same} == {1, 2, 3}
    assert {int(name.split(".")[2]) for name in first.keys() - same} == {0, 4}


def test_private_adapters_differ_in_the_middle_alone(made):
    models, _, _ = final(run_of(made, protocol={"adapters": "private"}))
    first, second = models["client0"], models["client1"]
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert {int(name.split(".")[2]) for name in same} == {0, 4}


def test_eight_clients_of_unlike_lengths_cuts_and_ranks_train_in_one_run(made):
    write_records(made / "data.jsonl", clients=8)
    run = run_of(made, protocol={"cuts": ["1:1", "2:1", "1:2"]}, ranks=[1, 2])
    models, state, records = final(run)
    assert set(models) == {""}
    assert len(models[""]) == len(prepare(run).model.trainable)
    assert all(torch.isfinite(one).all() for one in models[""].values())
    assert {int(name.split(".")[2]) for name in prepare(run).middle} == {2}
    assert records[-1].loss.value < records[0].loss.value
    assert list(state.middle["rows"]) == [""]


def test_a_prefix_trains_in_every_block_and_no_message_grows_by_it(made):
    """D3: what passes is as many bytes as with factors, and the result is one prefix in PEFT's format."""
    sent = []
    for kind in ({"lora_rank": 2}, {"lora_rank": 0, "prefix": 4}):
        model = {"name": "causal_lm", "path": str(made / "model"), **kind}
        folder = made / f"with {'prefix' if 'prefix' in kind else 'factors'}"
        run_to_the_end(run_of(made, model=model, protocol={"cuts": ["1:1", "2:1"]}, local={"lr": 0.1}), folder)
        lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
        passed = [one for one in lines if one["what"].endswith("messages")]
        sent.append([(one["what"], one["bytes"], one.get("download_bytes"), one["tokens"]) for one in passed])
    assert sent[0] == sent[1]
    assert len(sent[1]) == 4 * 4 * 3
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["peft_type"] == "PREFIX_TUNING"
    (found,) = load_file(folder / "adapter" / "adapter_model.safetensors").values()
    model = CausalLM(path=str(made / "model"), lora_rank=0, prefix=4).build(seed=1, device=torch.device("cpu"))
    start = torch.stack(list(model.trainable.values()), dim=1).flatten(1)
    moved = (found - start).unflatten(1, (5, -1)).abs().amax((0, 2))
    assert bool((moved > 0.01).all())  # each block's prefix, whoever has it


def test_recomputing_gives_the_same_run_bit_for_bit(made):
    plain, again = (
        final(run_of(made, protocol={"recompute": mode}, model=dropping(made)))[0][""] for mode in (False, True)
    )
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def dropping(made):
    path = str(made / "model")
    return {"name": "causal_lm", "path": path, "lora_rank": 2, "lora_alpha": 4.0, "lora_dropout": 0.2}


SAVED = [
    {},
    {"adapters": "private", "ends": "own", "wire": "int8", "recompute": True},
    {"replicas": 2, "replicas_every": 1},
    {"noise": 0.5, "bucket": 16},
]


@pytest.mark.parametrize("protocol", SAVED)
def test_a_run_that_was_stopped_and_gone_on_with_ends_with_the_same_bytes(made, protocol):
    run = run_of(made, protocol=protocol, model=dropping(made), clients_per_round=3)
    run_to_the_end(run, made / "unbroken")
    events = api.start(run, made / "stopped")
    while not (isinstance(event := next(events), api.RoundDone) and event.record.round == 1):
        pass
    events.close()
    assert load_file(last(made / "stopped") / "middle.safetensors")
    list(api.resume(made / "stopped")[1])
    assert logs(made / "stopped") == logs(made / "unbroken")
    assert adapters(made / "stopped") == adapters(made / "unbroken")


def last(folder):
    return max((folder / "checkpoints").iterdir())


def test_the_ledger_tells_of_every_kind_of_message_with_its_bytes(made):
    run = run_of(made, protocol={"wire": "bfloat16"})
    run_to_the_end(run, made / "out")
    lines = [json.loads(line) for line in (made / "out" / "ledger.jsonl").read_text().splitlines()]
    kinds = {}
    for line in lines:
        if line.get("round") == 1 and line["client"] == "client0" and "messages" in line["what"]:
            kinds[line["what"]] = (line["bytes"], line.get("download_bytes"), line["tokens"])
    tokens = kinds["FWD messages"][2]
    width = 32
    assert kinds == {
        "FWD messages": (tokens * 2 * width + 4 * 2 * 3, None, tokens),  # a length for each of 2 steps of 3 examples
        "server to client, BODY messages": (0, tokens * 2 * width, tokens),
        "GRAD messages": (tokens * 2 * width + 8 * 2, None, tokens),
        "server to client, BACK messages": (0, tokens * 2 * width, tokens),
    }
    metrics = [json.loads(line) for line in (made / "out" / "metrics.jsonl").read_text().splitlines()]
    told = {line["total"] for line in metrics if line["name"] == "wire_bytes_per_token"}
    assert all(1 <= one / (4 * width * 2) < 1.05 for one in told)
    assert len(told) >= 1


def test_a_row_holds_the_clients_own_parts_alone(made):
    run = run_of(made)
    run_to_the_end(run, made / "out")
    lines = [json.loads(line) for line in (made / "out" / "ledger.jsonl").read_text().splitlines()]
    ready = prepare(run)
    sizes = {line["bytes"] for line in lines if line["what"].startswith("row")}
    own = sum(value.numel() for name, value in ready.model.trainable.items() if int(name.split(".")[2]) in (0, 4))
    assert sizes == {4 * own}


def test_the_result_is_one_ordinary_adapter_of_the_whole_model(made):
    run = run_of(made)
    run_to_the_end(run, made / "out")
    ready = prepare(run)
    saved = load_file(made / "out" / "adapter" / "adapter_model.safetensors")
    assert len(saved) == len(ready.model.trainable)
    changed = run.model.load_adapter(ready.model, str(made / "out" / "adapter"))
    blocks = {
        int(name.split(".")[2]) for name, one in changed.items() if not torch.equal(one, ready.model.trainable[name])
    }
    assert blocks == {0, 1, 2, 3, 4}
    assert (made / "out" / "report.md").is_file()


def test_an_absent_client_leaves_the_others_their_round(made):
    run = run_of(made, min_clients=2)
    ready = prepare(run)
    stage = ready.stages[0]
    carrier = run.protocol.carried_by(run.engine).start(stage.work)

    def without(jobs):
        return carrier(job for job in jobs if job.client != "client2")

    state, record = step(stage.plan, begin(stage.plan, ready.layout.row({"": ready.shared})), without)
    assert record.absent == ("client2",)
    assert list(state.middle["rows"]) == [""]
    state, record = step(stage.plan, state, carrier)
    assert record.absent == ()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [{"recompute": True}, {"adapters": "private", "cuts": ["1:1", "2:1"]}])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(made, protocol):
    run = run_of(made, protocol=protocol, model=dropping(made), rounds=6)
    run_to_the_end(run, made / "unbroken")
    kill_and_resume(run, made / "killed", kills=6, longest_s=2.0, seed=3)
    assert logs(made / "killed") == logs(made / "unbroken")
    assert adapters(made / "killed") == adapters(made / "unbroken")


REFUSED = {
    "privacy": (
        {"privacy": {"name": "gaussian", "unit": "client", "epsilon": 8.0, "delta": 0.01}, "weighting": "uniform"},
        "privacy: found 'gaussian' with protocol 'split', whose clients send states and gradients in every step",
    ),
    "examples": ({"local": {"normalise": "examples"}}, r"local\.normalise: found 'examples' with protocol 'split'"),
    "preferences": ({"task": {"name": "dpo"}}, "task: found 'dpo' with protocol 'split', which first asks the whole"),
    "processes": ({"engine": {"name": "processes"}}, "engine: found 'processes' with protocol 'split'"),
    "attack": ({"attack": {"name": "sign_flip", "clients": 1}}, "attack: found 'sign_flip' with protocol 'split'"),
    "choice": ({"evaluation": {"choose_by": "loss", "every": 1}}, r"evaluation\.choose_by: found 'loss' with protocol"),
    "cut": ({"protocol": {"cuts": ["1"]}}, "cut: found '1', allowed is 'a:c'"),
    "replicas of one's own": (
        {"protocol": {"replicas": 2, "adapters": "private"}},
        "replicas: found 2 with adapters = 'private'",
    ),
    "no cut": ({"protocol": {"cuts": []}}, "cuts: found none"),
    "unlike cuts apart": (
        {"protocol": {"cuts": ["1:1", "2:1"], "ends": "own"}},
        "cuts: found several with ends = 'own'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_combined_is_refused_before_anything_is_loaded(made, case):
    changes, told = REFUSED[case]
    with pytest.raises(ConfigError, match=told):
        run_of(made, **changes)


def test_a_cut_outside_of_the_model_is_refused_and_leaves_no_directory(made):
    run = run_of(made, protocol={"cuts": ["3:2"]})
    with pytest.raises(ConfigError, match="found 3:2 of a model of 5 blocks"):
        run_to_the_end(run, made / "out")
    assert not (made / "out").exists()


def test_training_of_all_weights_is_refused(made):
    model = {"name": "causal_lm", "path": str(made / "model"), "lora_rank": 0}
    with pytest.raises(
        ConfigError, match=r"model\.lora_rank: found 0, which trains all weights, with protocol 'split'"
    ):
        final(run_of(made, model=model))


def test_a_family_that_does_not_come_apart_is_refused(tmp_path):
    model_folder(tmp_path / "model", "gemma", num_hidden_layers=4)
    write_records(tmp_path / "data.jsonl")
    with pytest.raises(ModelError, match="found a GemmaForCausalLM, which is not known to come apart"):
        prepare(run_of(tmp_path))


def test_a_file_differs_from_its_baselines_in_one_line(made):
    source = config.tomli_w.dumps(config.table_of(run_of(made)))
    (made / "run.toml").write_text(source)
    for name in ("split", "federated", "local_only", "centralised"):
        assert api.load_run(made / "run.toml", [f"protocol={name}"]).protocol.name == name
