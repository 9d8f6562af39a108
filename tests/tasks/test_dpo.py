"""Preference pairs: the loss against its papers and against trl, gradients of clients and pairs, references, counts."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from fedloom.base import tree
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Document, Preference, Turn, chat
from fedloom.contracts.federated import Template
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.kernels import client_gradients, example_gradients
from fedloom.federated.rounds import sample_clients
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from fedloom.tasks import dpo as module
from fedloom.tasks.dpo import Dpo
from support.clients import distance, random_params, tiny
from support.pairs import pair, pair_gradient_alone, pair_loss_alone, sums_alone
from support.small_runs import small_table, train

VICUNA = lookup(Template, "vicuna")()
TASK = Dpo(template=VICUNA)
VARIANTS = {
    "sigmoid": {},
    "smoothed": {"smoothing": 0.2},
    "ipo": {"variant": "ipo"},
}
SHAPES = {
    "one pair": [[(4, 3, 5)]],
    "one client": [[(4, 3, 5), (2, 6, 1), (9, 2, 2)]],
    "clients": [[(4, 3, 5), (2, 6, 1)], [(3, 3, 3)], [(12, 2, 8), (1, 1, 1), (5, 5, 2)]],
    "groups": [[(3, 2, 20), (14, 8, 1)] * 5, [(2, 2, 2)] * 3],
}


def parts_of(shape):
    return [[pair(*sizes, k, i) for i, sizes in enumerate(part)] for k, part in enumerate(SHAPES[shape])]


def task_of(variant):
    options = VARIANTS[variant]
    return Dpo(
        template=VICUNA, variant=options.get("variant", "sigmoid"), label_smoothing=options.get("smoothing", 0.0)
    )


def clients_of(model, parts):
    return [random_params(model, "dpo", k) for k in range(len(parts))]


def stacked(clients):
    return {name: leaf.requires_grad_() for name, leaf in tree.stack(clients).items()}


# ------------------------------------------------------------------------------------------------------------ the loss


def test_loss_is_the_reference_value(monkeypatch):
    # federated-tuning.md: beta 0.1, policy (-10, -14), reference (-11, -13).
    model, item = tiny(), pair(2, 1, 1, reference=(-11.0, -13.0))
    monkeypatch.setattr(module, "_log_probabilities", lambda *_: torch.tensor([-10.0, -14.0]))
    losses = TASK.loss(model, model.trainable, TASK.collate([[item]], model))
    assert losses.mean.value == pytest.approx(0.598139, abs=5e-7)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_those_of_pairs_alone(variant, architecture):
    model = tiny(architecture)
    items = [item for part in parts_of("clients") for item in part]
    params = random_params(model, "loss")
    found = task_of(variant).loss(model, params, TASK.collate([items], model)).total_B
    expected = torch.stack([pair_loss_alone(model.module, params, item, **VARIANTS[variant]) for item in items])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_pair_counts_once_however_long():
    model = tiny()
    items = [item for part in parts_of("clients") for item in part]
    assert TASK.loss(model, model.trainable, TASK.collate([items], model)).weight_B.tolist() == [1.0] * len(items)


def test_smoothing_of_zero_is_the_plain_loss():
    model, (items,) = tiny(), parts_of("one client")
    batch = TASK.collate([items], model)
    plain = TASK.loss(model, model.trainable, batch).total_B
    smoothed = replace(TASK, label_smoothing=0.0).loss(model, model.trainable, batch).total_B
    assert torch.equal(plain, smoothed)


def test_training_starts_at_the_logarithm_of_two():
    model, (items,) = tiny(), parts_of("one client")
    ready = TASK.prepared(items, model)
    losses = TASK.loss(model, model.trainable, TASK.collate([ready], model))
    assert losses.mean.value == pytest.approx(math.log(2), abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_clients_are_sums_over_their_pairs(shape, variant):
    model, parts = tiny(), parts_of(shape)
    clients = clients_of(model, parts)
    found = client_gradients(model, task_of(variant), stacked(clients), parts).sum_KP
    expected = torch.stack(
        [
            sum(pair_gradient_alone(model.module, own, item, **VARIANTS[variant]) for item in part)
            for own, part in zip(clients, parts, strict=True)
        ]
    )
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("rank", [2, 0])
@pytest.mark.parametrize("shape", ["one client", "clients", "groups"])
def test_clipped_gradients_are_those_of_whole_pairs(shape, rank):
    model, parts = tiny(rank=rank), parts_of(shape)
    clients = clients_of(model, parts)
    alone = [
        pair_gradient_alone(model.module, own, item) for own, part in zip(clients, parts, strict=True) for item in part
    ]
    clip = float(torch.stack([row_P.norm() for row_P in alone]).median())
    found, scales_LE = example_gradients(
        model,
        TASK,
        stacked(clients),
        parts,
        lambda norms_LE: (clip / norms_LE.norm(dim=0)).clamp(max=1).expand_as(norms_LE),
    )
    rows = iter([row_P * min(1.0, clip / float(row_P.norm())) for row_P in alone])
    expected = torch.stack([sum(next(rows) for _ in part) for part in parts])
    assert distance(found, expected) < 1e-5
    assert scales_LE.shape[1] == len(alone)


def test_whole_models_of_clients_with_unlike_counts_agree_with_pairs_alone():
    model, parts = tiny(rank=0), parts_of("clients")
    clients = clients_of(model, parts)
    found = client_gradients(model, TASK, stacked(clients), parts)
    expected = torch.stack(
        [
            sum(pair_gradient_alone(model.module, own, item) for item in part)
            for own, part in zip(clients, parts, strict=True)
        ]
    )
    assert distance(found.sum_KP, expected) < 1e-5
    assert found.weight_K.tolist() == [2, 1, 3]


# ------------------------------------------------------------------------------------------------------- the reference


def test_reference_is_what_the_model_starts_from():
    model, (items,) = tiny(), parts_of("one client")
    found = [item.reference for item in TASK.prepared(items, model)]
    expected = [tuple(float(s) for s in sums_alone(model.module, model.trainable, item)) for item in items]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_reference_base_has_its_adapters_off():
    model, (items,) = tiny(), parts_of("one client")
    off = {n: torch.zeros_like(t) if n.endswith("lora_B") else t for n, t in model.trainable.items()}
    found = [item.reference for item in replace(TASK, reference="base").prepared(items, model)]
    expected = [tuple(float(s) for s in sums_alone(model.module, off, item)) for item in items]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_reference_base_of_a_whole_model_is_its_start():
    model, (items,) = tiny(rank=0), parts_of("one client")
    assert replace(TASK, reference="base").prepared(items, model) == TASK.prepared(items, model)


def test_a_step_needs_one_pass_of_the_model(monkeypatch):
    model, (items,) = tiny(), parts_of("one client")
    ready, passes = TASK.prepared(items, model), []
    original = type(model).token_losses
    monkeypatch.setattr(type(model), "token_losses", lambda *words: passes.append(1) or original(*words))
    client_gradients(model, TASK, stacked([model.trainable]), [ready])
    assert len(passes) == 1


# ---------------------------------------------------------------------------------------------------- trl, same batch


@pytest.fixture(scope="module")
def trl_batch(tmp_path_factory):
    """A batch of trl's own making with its loss, rewards and gradients; the reference is another random model."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from support.models import bare_model, tokenizer

    model, reference = bare_model("llama", 0), bare_model("llama", 1)
    rows = [
        {"prompt": "w3 w4 w5", "chosen": " w6 w7", "rejected": " w8"},
        {"prompt": "w9", "chosen": " w10", "rejected": " w11 w12 w13 w14"},
        {"prompt": "w20 w21", "chosen": " w22 w23 w24", "rejected": " w25 w26"},
    ]
    folder = str(tmp_path_factory.mktemp("trl"))

    def result(loss_type):
        words = {"loss_type": [loss_type], "beta": 0.1, "report_to": "none", "use_cpu": True, "bf16": False}
        settings = DPOConfig(folder, per_device_train_batch_size=3, gradient_checkpointing=False, **words)
        words = {"args": settings, "train_dataset": Dataset.from_list(rows), "processing_class": tokenizer()}
        trainer = DPOTrainer(model, reference, **words)
        inputs = next(iter(trainer.get_train_dataloader()))
        trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        loss = trainer.compute_loss(trainer.model.eval(), inputs)
        grads = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
        told = {name: values[-1] for name, values in trainer._metrics["eval"].items() if values}
        return inputs, loss.item(), grads, told

    return model, reference, {name: result(name) for name in ("sigmoid", "ipo")}


def encoded_of(inputs):
    """The pairs of trl's batch: chosen ones first, then rejected ones, padded."""
    from fedloom.contracts.language import Encoded

    rows = []
    for tokens, mask, answer in zip(
        inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True
    ):
        rows.append((tokens[mask == 1].int(), answer[mask == 1].bool()))
    half = len(rows) // 2
    return [
        Encoded(torch.cat((c[0], r[0])), torch.cat((c[1], r[1])), cuts=(len(c[0]),))
        for c, r in zip(rows[:half], rows[half:], strict=True)
    ]


def as_model(bare):
    model = tiny(rank=0)
    return {name: bare.get_parameter(name).detach().clone() for name in model.trainable}


@pytest.mark.parametrize("variant", ["sigmoid", "ipo"])
@pytest.mark.filterwarnings("ignore")
def test_loss_rewards_and_gradients_are_those_of_trl(trl_batch, variant):
    bare, reference, results = trl_batch
    inputs, loss, grads, told = results[variant]
    task, params = Dpo(template=VICUNA, variant=variant), as_model(bare)
    model = replace(tiny(rank=0), trainable=as_model(reference))
    items = task.prepared(encoded_of(inputs), model)
    leaves = stacked([params])
    found = client_gradients(model, task, leaves, [items])
    expected = torch.cat([grads[name].flatten() for name in params])
    assert float(found.total_K) / 3 == pytest.approx(loss, rel=1e-5)
    assert distance(found.sum_KP[0] / 3, expected) < 1e-5
    with torch.no_grad():
        (scores,) = task.scores(model, params, [items])
    names = {
        "chosen_reward": "rewards/chosen",
        "rejected_reward": "rewards/rejected",
        "reward_margin": "rewards/margins",
    }
    names["preference_accuracy"] = "rewards/accuracies"
    means = {ours: sum(one[ours].value for one in scores) / 3 for ours in names}
    assert means == pytest.approx({ours: told[theirs] for ours, theirs in names.items()}, rel=1e-4)


# -------------------------------------------------------------------------------------------------------------- scores


def test_scores_are_those_of_the_formulas():
    model, (items,) = tiny(), parts_of("one client")
    params = random_params(model, "scores")
    ready = TASK.prepared(items, model)
    with torch.no_grad():
        ((first, *_),) = TASK.scores(model, params, [ready])
        sums = sums_alone(model.module, params, items[0])
        chosen, rejected = (0.1 * (float(s) - r) for s, r in zip(sums, ready[0].reference, strict=True))
    assert first["reward_margin"].value == pytest.approx(chosen - rejected, abs=1e-5)
    assert first["chosen_reward"].value == pytest.approx(chosen, abs=1e-5)
    assert first["preference_accuracy"].value == float(chosen > rejected)
    assert first["likelihood_accuracy"].value == float(sums[0] > sums[1])
    assert first["loss"].value == pytest.approx(float(pair_loss_alone(model.module, params, ready[0])), abs=1e-5)


def test_the_reference_has_half_of_all_pairs_right_and_no_divergence():
    model, (items,) = tiny(), parts_of("one client")
    with torch.no_grad():
        (scores,) = TASK.scores(model, model.trainable, [TASK.prepared(items, model)])
    assert {one["preference_accuracy"].value for one in scores} == {0.5}
    assert max(abs(one["kl_to_reference"].value) for one in scores) < 1e-6


def test_divergence_is_that_of_the_distributions_over_the_chosen_answer():
    from support.clients import logits_alone
    from support.pairs import sequences

    model, (items,) = tiny(), parts_of("one client")
    params = random_params(model, "divergence")
    with torch.no_grad():
        found = TASK.scores(model, params, [TASK.prepared(items, model)])[0][0]["kl_to_reference"]
        chosen = sequences(items[0])[0]
        p, q = (logits_alone(model.module, tree_, chosen).softmax(1) for tree_ in (params, model.trainable))
    assert found.weight == len(p)
    assert found.value == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-4)


def test_a_question_has_the_loss_of_its_answer():
    from support.clients import loss_alone

    model = tiny()
    item = TASK.encode(chat("w3 w4", "w5 w6"), model)
    with torch.no_grad():
        ((scores,),) = TASK.scores(model, model.trainable, [TASK.prepared([item], model)])
        expected = float(loss_alone(model.module, model.trainable, item))
    assert set(scores) == {"answer_loss"}
    assert scores["answer_loss"].total == pytest.approx(expected, rel=1e-5)


def test_pairs_and_questions_may_be_scored_together():
    model = tiny()
    items = [TASK.encode(chat("w3 w4", "w5"), model), *parts_of("one client")[0], TASK.encode(chat("w7", "w8"), model)]
    with torch.no_grad():
        (scores,) = TASK.scores(model, model.trainable, [TASK.prepared(items, model)])
    assert ["answer_loss" in one for one in scores] == [True, False, False, False, True]


def test_scores_of_stacked_clients_are_those_of_each_by_itself():
    model = tiny()
    parts = [TASK.prepared([*part, TASK.encode(chat("w3 w4", "w5 w6"), model)], model) for part in parts_of("clients")]
    clients = clients_of(model, parts)
    with torch.no_grad():
        found = TASK.scores(model, tree.stack(clients), parts)
        alone = [TASK.scores(model, own, [part])[0] for own, part in zip(clients, parts, strict=True)]
    values = [[[one[name].value for name in sorted(one)] for part in each for one in part] for each in (found, alone)]
    flat = [torch.tensor([value for one in each for value in one]) for each in values]
    torch.testing.assert_close(*flat, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------ encoding


def preference(prompt, chosen, rejected):
    return Preference((Turn("user", prompt),), chosen, rejected)


def text_of(item, model):
    """The supervised text of either answer."""
    spans = (slice(0, item.cuts[0]), slice(item.cuts[0], len(item.tokens_T)))
    return [model.tokenizer.decode(item.tokens_T[s][item.supervised_T[s]].tolist()) for s in spans]


def test_answers_that_begin_alike_stay_whole():
    model = tiny()
    item = TASK.encode(preference("w3 w4", "w5 w6 w7", "w5 w6 w8"), model)
    assert text_of(item, model) == ["w5 w6 w7 </s>", "w5 w6 w8 </s>"]


def test_both_sequences_begin_with_the_prompt():
    model = tiny()
    item = TASK.encode(preference("w3 w4", "w5", "w6 w7"), model)
    first, second = item.tokens_T[: item.cuts[0]], item.tokens_T[item.cuts[0] :]
    same = min(len(first), len(second)) - 3
    assert torch.equal(first[:same], second[:same])
    assert not item.supervised_T[: item.cuts[0] - 2].any()


def test_only_the_last_answer_of_a_dialogue_is_supervised():
    model = tiny()
    turns = (Turn("user", "w3"), Turn("assistant", "w4"), Turn("user", "w5"))
    assert text_of(TASK.encode(Preference(turns, "w6", "w7"), model), model) == ["w6 </s>", "w7 </s>"]


def test_a_prompt_of_200_tokens_survives_at_512():
    model = tiny()
    item = TASK.encode(preference(" ".join(["w3"] * 200), "w4", "w5"), model)
    assert item.tokens_T.tolist().count(model.tokenizer.get_vocab()["w3"]) == 400
    assert not item.truncated


def test_a_longer_prompt_keeps_its_end_and_is_counted():
    model = tiny()
    item = replace(TASK, max_prompt_length=5).encode(preference("w3 w4 w5 w6 w7 w8", "w9", "w10"), model)
    whole = TASK.encode(preference("w3 w4 w5 w6 w7 w8", "w9", "w10"), model)
    assert item.cuts[0] == 5 + 2
    assert torch.equal(item.tokens_T[: item.cuts[0]], whole.tokens_T[whole.cuts[0] - 7 : whole.cuts[0]])
    assert item.truncated


def test_a_longer_answer_is_cut_and_counted():
    model = tiny()
    task = replace(TASK, max_prompt_length=2, max_length=4)
    item = task.encode(preference("w3", "w4 w5 w6 w7", "w8"), model)
    assert item.lengths == (4, 4)
    assert item.truncated


def test_answers_that_are_the_same_teach_nothing_and_are_counted():
    same = TASK.encode(preference("w3", "w4 w5", "w4 w5"), tiny())
    cut = replace(TASK, max_prompt_length=2, max_length=4).encode(preference("w3", "w4 w5 w6 w7", "w4 w5 w8"), tiny())
    assert (same.same_answers, bool(same.supervised_T.any())) == (True, False)
    assert (cut.same_answers, cut.truncated, bool(cut.supervised_T.any())) == (True, True, False)
    assert TASK.counts([same, cut, TASK.encode(preference("w3", "w4", "w5"), tiny())])["same_answers"] == 2


def test_an_empty_answer_is_counted():
    assert TASK.encode(preference("w3", "w4", " "), tiny()).empty_answer


def test_a_document_is_refused():
    with pytest.raises(DataError, match="task 'dpo' knows Preference examples and Chat questions, found a Document"):
        TASK.encode(Document("w3"), tiny())


def test_prompts_without_room_for_an_answer_are_refused():
    with pytest.raises(ConfigError, match="max_prompt_length: found 64, allowed is less than max_length = 64"):
        Dpo(max_length=64, max_prompt_length=64)


@pytest.mark.parametrize("words", [{"label_smoothing": 0.5}, {"label_smoothing": 0.1, "variant": "ipo"}])
def test_smoothing_without_meaning_is_refused(words):
    with pytest.raises(ConfigError, match="label_smoothing: found"):
        Dpo(**words)


# ---------------------------------------------------------------------------------------------------------------- runs


def pair_table(folder, **changes):
    """A small run over preference pairs."""
    import json

    table = small_table(folder)
    lines = [
        {
            "prompt": f"w{3 + i % 20} w{5 + i % 7}",
            "chosen": f"w{6 + i % 9}",
            "rejected": f"w{20 + i % 5} w9",
            "owner": f"client{i % 4}",
        }
        for i in range(28 + 9)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"name": "file", "path": str(folder / "pairs.jsonl"), "form": "preference", "tags": {"client": "owner"}}
    task = {"name": "dpo", "max_length": 60, "max_prompt_length": 50, "template": {"name": "vicuna"}}
    return table | {"task": task, "data": data} | changes


RULES = {
    "fedavg": {},
    "fedprox": {"rule": {"name": "prox"}},
    "scaffold": {"rule": {"name": "scaffold"}},
    "fedavgm": {"server_opt": {"name": "sgd", "momentum": 0.9}},
    "fedadagrad": {"server_opt": {"name": "adagrad"}},
    "fedyogi": {"server_opt": {"name": "yogi"}},
    "fedadam": {"server_opt": {"name": "adam"}},
    "local": {"protocol": "local_only"},
    "central": {"protocol": "centralised"},
}


@pytest.mark.parametrize("method", RULES)
def test_every_method_tunes_pairs(tmp_path, method):
    run = read_run(pair_table(tmp_path, rounds=2, **RULES[method]))
    _, records = train(run)
    assert records[0].loss.value == pytest.approx(math.log(2), abs=0.2)


def test_a_run_over_pairs_lowers_their_loss(tmp_path):
    _, records = train(read_run(pair_table(tmp_path, rounds=12)))
    assert records[-1].loss.value < records[0].loss.value - 0.05


def test_clients_side_by_side_are_clients_in_turn(tmp_path):
    states = []
    for engine in ("cohort", "sequential"):
        state, _ = train(read_run(pair_table(tmp_path, rounds=2, engine={"name": engine})))
        states.append(state.params_P)
    assert distance(states[0], states[1]) < 1e-4


def test_private_steps_over_pairs_move_the_model_and_tell_no_loss(tmp_path):
    privacy = {"name": "gaussian", "unit": "example", "epsilon": 50.0, "delta": 1e-3}
    run = read_run(pair_table(tmp_path, rounds=2, weighting="uniform", privacy=privacy))
    ready = prepare(run)
    state, records = train(run, ready=ready)
    assert not torch.equal(state.params_P, ready.layout.row({"": ready.shared}))
    assert records[-1].loss.weight == 0


def test_references_of_a_client_are_worked_out_when_it_first_trains_and_once(tmp_path, monkeypatch):
    """A round of one client waits for nobody else's, and whoever came before makes no difference."""
    run = read_run(pair_table(tmp_path, rounds=6, clients_per_round=1))
    passes, prepared = [], type(run.task).prepared
    monkeypatch.setattr(type(run.task), "prepared", lambda *args: passes.append(len(args[1])) or prepared(*args))
    ready = prepare(run)
    held = len(passes)
    train(run, ready=ready)
    drawn = {client for round in range(6) for client in sample_clients(ready.stages[0].plan, round)}
    sizes = sorted(len(ready.shards[client].items) for client in drawn)
    assert sorted(passes[held:]) == sizes and len(drawn) > 1
    work, other = ready.stages[0].work, prepare(run).stages[0].work
    for client in reversed(list(other.shards)):
        other.shard(client)
    told = [[[item.reference for item in one.shard(client).items] for client in drawn] for one in (work, other)]
    assert told[0] == told[1]


def test_learning_from_questions_is_refused(tmp_path):
    table = small_table(tmp_path) | {"task": {"name": "dpo", "template": {"name": "vicuna"}}}
    with pytest.raises(DataError, match=r"client 'client0': training example 0 is a Chat, task 'dpo' learns from Pref"):
        prepare(read_run(table))


def test_sft_on_pairs_is_refused(tmp_path):
    table = pair_table(tmp_path) | {"task": {"name": "sft", "template": {"name": "vicuna"}}}
    with pytest.raises(DataError, match="is a Preference, task 'sft' learns from Chat and Document examples"):
        prepare(read_run(table))


# --------------------------------------------------------------------------------------------------- steps by epochs


def test_steps_are_the_formula_without_rounding():
    """50 clients, 7 a round, 10 rounds: quotients of floats gave 16 steps of 56 pairs, the formula gives 15."""
    clients, per_round, rounds, batch = 50, 7, 10, 8
    settings, selections = LocalSettings(epochs=3, batch=batch), Fraction(rounds * per_round, clients)
    steps = {n: settings.steps_of(n, selections=selections) for n in range(1, 200)}
    assert steps == {n: -(-3 * n * clients // (rounds * per_round * batch)) for n in range(1, 200)}


def test_steps_of_a_client_are_those_of_the_benchmark():
    settings = LocalSettings(epochs=3, batch=8)
    assert [settings.steps_of(n, selections=Fraction(200 * 10, 747)) for n in (13, 154)] == [2, 22]


def test_without_epochs_steps_are_fixed():
    assert LocalSettings(steps=7).steps_of(1000, selections=Fraction(1)) == 7


def test_a_client_with_one_example_takes_a_step():
    assert LocalSettings(epochs=0.1).steps_of(1, selections=Fraction(100)) == 1


def test_clients_of_a_run_take_their_own_steps(tmp_path):
    run = read_run(pair_table(tmp_path, rounds=2, local={"lr": 0.01, "epochs": 4, "batch": 2}))
    ready = prepare(run)
    _, records = train(run, ready=ready)
    sizes = {client: len(shard.items) for client, shard in ready.shards.items()}
    assert {one.client: one.steps for one in records[0].clients} == {
        c: math.ceil(4 * n / 2 / 2) for c, n in sizes.items()
    }


def test_epochs_with_privacy_of_examples_are_refused(tmp_path):
    words = {"weighting": "uniform", "privacy": {"name": "gaussian", "unit": "example", "epsilon": 8.0, "delta": 1e-3}}
    with pytest.raises(ConfigError, match=r"local.epochs: found 3 with privacy of examples"):
        read_run(pair_table(tmp_path, local={"epochs": 3}, **words))
