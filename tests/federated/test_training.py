"""Local training, rounds and the sequential engine on a real run with a tiny model."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from fedloom.base import config, tree
from fedloom.base.errors import ConfigError, TrainingError
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Task
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.aggregators.mean import HELD_ROWS
from fedloom.federated.batching import batches
from fedloom.federated.learning_rate import learning_rate
from fedloom.federated.rounds import sample_clients
from fedloom.runs.directory import RunDirectory
from fedloom.runs.prepared import prepare
from fedloom.runs.states import load_state, save_state
from support.paths import ROOT
from support.small_runs import small_run, train, write_records

RULES = ("plain", "prox", "scaffold")
# A large epsilon: else AdamW turns a gradient's rounding near zero into a whole step.
SMOOTH = {"lr": 0.02, "steps": 2, "batch": 3, "epsilon": 1e-3}
SERVER_OPTS = ("sgd", "adagrad", "yogi", "adam")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("small")


def test_training_lowers_the_loss(folder):
    _, records = train(small_run(folder, rounds=6))
    assert records[-1].loss.value < records[0].loss.value - 0.2


def test_same_seed_gives_the_same_bits(folder):
    (one, _), (other, _) = (train(small_run(folder)) for _ in range(2))
    assert torch.equal(one.params_P, other.params_P)


def test_other_seed_samples_other_clients(folder):
    schedules = []
    for seed in range(6):
        ready = prepare(small_run(folder, seed=seed, clients_per_round=2))
        schedules.append(tuple(tuple(sample_clients(ready.stages[0].plan, r)) for r in range(4)))
    assert len(set(schedules)) == 6


def test_prox_with_mu_zero_is_fedavg(folder):
    plain, _ = train(small_run(folder))
    prox, _ = train(small_run(folder, rule={"name": "prox", "mu": 0.0}))
    assert torch.equal(plain.params_P, prox.params_P)


def test_prox_with_mu_is_not_fedavg(folder):
    plain, _ = train(small_run(folder))
    prox, _ = train(small_run(folder, rule={"name": "prox", "mu": 1.0}))
    assert not torch.equal(plain.params_P, prox.params_P)


def test_first_round_of_scaffold_is_fedavg(folder):
    plain, _ = train(small_run(folder), rounds=1)
    scaffold, _ = train(small_run(folder, rule={"name": "scaffold"}), rounds=1)
    assert torch.equal(plain.params_P, scaffold.params_P)


def test_second_round_of_scaffold_is_not_fedavg(folder):
    plain, _ = train(small_run(folder), rounds=2)
    scaffold, _ = train(small_run(folder, rule={"name": "scaffold"}), rounds=2)
    assert not torch.equal(plain.params_P, scaffold.params_P)


def summed_loss(module, params, item):
    """The loss of one example alone, from the logits at all its tokens."""
    tokens_T = item.tokens_T.long()
    logits_TV = functional_call(module, params, kwargs={"input_ids": tokens_T[None]}).logits[0, :-1]
    labels_T = tokens_T[1:].masked_fill(~item.supervised_T[1:], -100)
    return torch.nn.functional.cross_entropy(logits_TV, labels_T, reduction="sum", ignore_index=-100)


def by_hand(ready, client, *, rounds):
    """One client's training with torch's own optimiser, clipping and mean loss: no line of local.py."""
    run, shard = ready.stages[0].plan, ready.stages[0].work.shards[client]
    params = {name: value.clone().requires_grad_() for name, value in ready.shared.items()}
    for round in range(rounds):
        lr = run.local.lr_final + 0.5 * (run.local.lr - run.local.lr_final) * (
            1 + math.cos(math.pi * round / run.rounds)
        )
        optimiser = torch.optim.AdamW(params.values(), lr=lr, weight_decay=0.0, eps=run.local.epsilon)
        for step in batches(len(shard.items), run.local, run.seed, round, client):
            items = [shard.items[index] for micro in step for index in micro]
            total = sum(summed_loss(ready.model.module, params, item) for item in items)
            optimiser.zero_grad()
            (total / sum(int(item.supervised_T[1:].sum()) for item in items)).backward()
            torch.nn.utils.clip_grad_norm_(params.values(), run.local.clip_norm)
            optimiser.step()
    return {name: value.detach() for name, value in params.items()}


def test_one_client_is_plain_training(folder):
    ready = prepare(small_run(folder, protocol="centralised", local=SMOOTH))
    state, _ = train(ready.run, ready=ready)
    ours, theirs = ready.layout.tree(state.params_P), by_hand(ready, "pooled", rounds=3)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=2e-4, atol=2e-6)


def test_a_round_is_the_weighted_mean_of_clients_trained_by_hand(folder):
    ready = prepare(small_run(folder, local=SMOOTH))
    state, records = train(ready.run, ready=ready, rounds=1)
    trained = {c: by_hand(ready, c, rounds=1) for c in ready.shards}
    total = sum(record.n_examples for record in records[0].clients)
    for name, value in ready.layout.tree(state.params_P).items():
        parts = [r.n_examples / total * trained[r.client][name] for r in records[0].clients]
        torch.testing.assert_close(value, sum(parts), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("weighting", ["samples", "used_samples", "tokens", "quality", "uniform"])
def test_weights_follow_the_weighting(folder, weighting):
    ready = prepare(small_run(folder, weighting=weighting))
    _, records = train(ready.run, ready=ready, rounds=1)
    wanted = {
        "samples": {c: len(s.items) for c, s in ready.shards.items()},
        "used_samples": {c: min(6, len(s.items)) for c, s in ready.shards.items()},
        "tokens": {c: sum(int(i.supervised_T.sum()) for i in s.items) for c, s in ready.shards.items()},
        "quality": {c: len(s.items) for c, s in ready.shards.items()},  # of what nobody rated
        "uniform": dict.fromkeys(ready.shards, 1),
    }[weighting]
    assert {record.client: record.weight for record in records[0].clients} == wanted


def test_four_micro_batches_of_one_equal_one_batch_of_four(folder):
    one, _ = train(small_run(folder, local=SMOOTH | {"batch": 4}))
    four, _ = train(small_run(folder, local=SMOOTH | {"batch": 1, "accumulation": 4}))
    torch.testing.assert_close(one.params_P, four.params_P, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("server_opt", SERVER_OPTS)
@pytest.mark.parametrize("optimiser_state", ["fresh", "kept"])
def test_going_on_from_a_saved_state_gives_the_same_bits(folder, tmp_path, rule, server_opt, optimiser_state):
    local = {"lr": 0.02, "steps": 1, "batch": 2, "optimiser_state": optimiser_state}
    changes = {
        "rule": {"name": rule},
        "server_opt": {"name": server_opt},
        "local": local,
        "clients_per_round": 3,
        "rounds": 5,
    }
    ready = prepare(small_run(folder, **changes))
    unbroken, _ = train(ready.run, ready=ready, rounds=4)
    half, _ = train(ready.run, ready=ready, rounds=2)
    directory = RunDirectory.create(tmp_path / "run", {"run.toml": ""})
    directory.save(2, save_state(half, ready.layout, stage=0, wall_s=0.0))
    _, restored = load_state(directory.restore(), ready.layout)
    resumed, _ = train(ready.run, ready=ready, rounds=2, state=restored)
    assert torch.equal(unbroken.params_P, resumed.params_P)


def test_a_round_leaves_its_input_alone(folder):
    ready = prepare(small_run(folder, rule={"name": "scaffold"}, server_opt={"name": "adam"}))
    state, _ = train(ready.run, ready=ready, rounds=1)
    saved = save_state(state, ready.layout, stage=0, wall_s=0.0)
    before = {name: tree.digest(part) for name, part in saved.trees.items()}
    train(ready.run, ready=ready, rounds=1, state=state)
    assert before == {
        name: tree.digest(part) for name, part in save_state(state, ready.layout, stage=0, wall_s=0.0).trees.items()
    }


def test_kept_optimiser_state_differs_from_fresh(folder):
    runs = (small_run(folder, local={"lr": 0.02, "steps": 1, "optimiser_state": s}) for s in ("fresh", "kept"))
    fresh, kept = (train(run)[0].params_P for run in runs)
    assert not torch.equal(fresh, kept)


def test_parameters_that_are_not_shared_stay_with_their_client(folder):
    ready = prepare(small_run(folder, share="lora_A"))
    state, records = train(ready.run, ready=ready)
    assert all("lora_A" in name for _, name, _ in ready.layout.entries) and ready.private
    private = [state.memory[client]["private"][""] for client in ready.shards]
    assert not torch.equal(private[0], private[1])
    assert records[0].clients[0].upload_bytes == 4 * ready.layout.size


def test_frozen_factor_does_not_move(folder):
    ready = prepare(small_run(folder, train="lora_B"))
    state, _ = train(ready.run, ready=ready)
    assert all("lora_B" in name for name in ready.layout.tree(state.params_P))


def test_all_parameters_can_be_trained(folder):
    table = {"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 0}
    ready = prepare(small_run(folder, model=table))
    _, records = train(ready.run, ready=ready)
    assert any("embed_tokens" in name for name in ready.shared) and records[-1].loss.value < records[0].loss.value


def test_dropout_masks_differ_by_client_and_round_and_repeat_with_the_seed(folder, monkeypatch):
    seen = []
    from fedloom.base import rng

    original = rng.generator

    def recording(*names, device="cpu"):
        if "dropout" in names:
            seen.append((names[2:], original(*names).initial_seed()))
        return original(*names, device=device)

    monkeypatch.setattr(rng, "generator", recording)
    model = {"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 2, "lora_dropout": 0.3}
    run = small_run(folder, model=model)
    (one, _), (two, _) = train(run), train(run)
    off, _ = train(small_run(folder))
    assert len({seed for _, seed in seen}) == 3 * 4 and torch.equal(one.params_P, two.params_P)
    assert not torch.equal(one.params_P, off.params_P)


def test_nothing_is_tokenised_after_preparation(folder, monkeypatch):
    ready = prepare(small_run(folder))
    calls = []
    monkeypatch.setattr(lookup(Task, "sft"), "encode", lambda *_: calls.append(1))
    train(ready.run, ready=ready)
    assert not calls


def test_small_client_logs_samples_seen_and_epochs(folder, tmp_path):
    path = write_records(tmp_path / "three.jsonl", clients=1, records=3)
    data = {"name": "file", "path": str(path), "form": "alpaca", "tags": {"client": "owner"}}
    run = small_run(folder, data=data, local={"steps": 4, "batch": 4}, evaluation={"holdout": 0.0, "metrics": []})
    _, records = train(run, rounds=1)
    client = records[0].clients[0]
    assert (client.n_examples, client.samples_seen) == (3, 16)


def test_batches_are_whole_shuffles_that_differ_by_client_and_round():
    settings = LocalSettings(steps=5, batch=4)
    order = [i for step in batches(10, settings, 0, 1, "a") for micro in step for i in micro]
    other = [
        [i for step in batches(10, settings, 0, r, c) for micro in step for i in micro] for r, c in ((1, "b"), (2, "a"))
    ]
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10)) and order not in other


@pytest.mark.parametrize(
    ("round", "expected"), [(0, 5.0e-5), (50, 4.282e-5), (100, 2.550e-5), (150, 8.176e-6), (199, 1.003e-6)]
)
def test_cosine_learning_rate_equals_the_published_values(round, expected):
    settings = LocalSettings(lr=5e-5, lr_final=1e-6)
    assert learning_rate(settings, round=round, rounds=200) == pytest.approx(expected, rel=5e-4)


def test_loss_that_is_not_finite_names_client_and_round(folder):
    with pytest.raises(
        TrainingError, match=r"client 'client\d', round \d+(, step \d+: the loss is|: its row holds NaN)"
    ):
        train(small_run(folder, local={"lr": 1e30, "clip_norm": 0.0, "steps": 8, "optimiser": "sgd"}))


def test_server_gain_is_one_for_averaging_and_below_one_for_adaptive_rules(folder):
    gains = [train(small_run(folder, server_opt={"name": name}), rounds=1)[1][0].gain for name in SERVER_OPTS]
    assert gains[0] == 1.0 and all(0 < gain < 1 for gain in gains[1:])


@pytest.mark.slow
def test_250_clients_need_fewer_than_five_adapter_copies_beside_the_rows_that_the_mean_holds(tmp_path):
    """In a process of its own, where nothing else holds tensors."""
    command = [sys.executable, "-m", "support.count_adapters", str(tmp_path)]
    counted = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    many, few = json.loads(counted.stdout)
    assert many == few < 5 + HELD_ROWS


def test_unmatched_share_pattern_is_refused(folder):
    with pytest.raises(ConfigError, match="share: 'nothing' matches none of"):
        prepare(small_run(folder, share="nothing"))


def test_more_sampled_clients_than_clients_is_refused(folder):
    with pytest.raises(ConfigError, match="clients_per_round: found 9, the data have 4 clients"):
        prepare(small_run(folder, clients_per_round=9))


def test_resolved_run_reloads_equal(folder):
    run = small_run(folder, rule={"name": "scaffold"}, server_opt={"name": "adam"})
    assert config.build(type(run), config.parse(config.dump(run), "run.toml")) == run


def test_local_only_trains_every_client(folder):
    ready = prepare(small_run(folder, protocol="local_only"))
    assert [client for stage in ready.stages for client in stage.plan.clients] == list(ready.shards)


def test_clients_of_local_training_send_nothing(folder):
    ready = prepare(small_run(folder, protocol="local_only"))
    _, records = train(ready.run, ready=ready, rounds=1)
    assert [client.upload_bytes for client in records[0].clients] == [0] * 4


def test_centralised_takes_as_many_steps_as_all_sampled_clients(folder):
    ready = prepare(small_run(folder, protocol="centralised", clients_per_round=3))
    assert ready.stages[0].plan.local.steps == 3 * ready.run.local.steps


def test_baselines_use_no_rule_and_no_server_step(folder):
    run = small_run(folder, protocol="centralised", rule={"name": "prox"}, server_opt={"name": "adam"})
    plan = prepare(run).stages[0].plan
    assert (plan.rule.name, plan.server_opt.name) == ("plain", "sgd")


def test_layout_of_the_payload_counts_every_byte(folder):
    ready = prepare(small_run(folder))
    _, records = train(ready.run, ready=ready, rounds=1)
    assert records[0].clients[0].upload_bytes == 4 * Layout.of_tree(ready.shared).size


def test_scaffold_uploads_two_rows_worth(folder):
    run = small_run(folder, rule={"name": "scaffold"})
    ready = prepare(replace(run))
    _, records = train(ready.run, ready=ready, rounds=1)
    assert records[0].clients[0].upload_bytes == 8 * ready.layout.size


def test_questions_in_both_sets_are_answered_once(folder, tmp_path, monkeypatch):
    from fedloom import api
    from fedloom.runs import measure

    run, asked = small_run(folder, rounds=1), []
    original = measure.evaluate

    def counted(model, task, examinees, **words):
        asked.extend(one.held.name for one in examinees)
        return original(model, task, examinees, **words)

    monkeypatch.setattr(measure, "evaluate", counted)
    list(api.start(run, tmp_path / "run"))
    assert asked == ["test", "test"]
    results = RunDirectory.open(tmp_path / "run").lines("results.jsonl")
    scores = {name: [one["scores"] for one in results if one["set"] == name] for name in ("test", "validation")}
    assert scores["test"] == scores["validation"]


def test_a_metric_named_twice_is_refused(folder):
    with pytest.raises(ConfigError, match="metrics: found 'exact_match' twice, allowed is each once"):
        small_run(folder, evaluation={"metrics": ["exact_match", "exact_match"]})
