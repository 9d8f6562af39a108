"""Models of several clients evaluated in one pass of the base, against each by itself."""

import pytest
import torch

from fedloom.base.plugin import lookup
from fedloom.contracts.examples import chat
from fedloom.contracts.federated import Template
from fedloom.evaluation.held_out import Examinee, evaluate, held_out
from fedloom.evaluation.metrics.exact_match import ExactMatch
from fedloom.runs.directory import RunDirectory
from fedloom.runs.measure import measure
from fedloom.runs.prepared import prepare
from fedloom.tasks.sft import Sft
from support.clients import random_params, tiny
from support.small_runs import small_run, train

TASK = Sft(template=lookup(Template, "vicuna")(), batch=8)
QUESTIONS = [chat(f"w{3 + i} w{4 + i}", f"w{5 + i} w{6 + i % 3}", number=str(i)) for i in range(7)]
COUNTS = {"alike": (3, 3, 3), "unlike": (5, 1, 7), "one": (4,), "one has none": (4, 0, 2)}


def examinees(counts):
    """Clients with random adapters, each asked so many of the questions."""
    model = tiny()
    found = []
    for k, count in enumerate(counts):
        part, _ = held_out("test", QUESTIONS[: max(count, 1)], TASK, model)
        asked = type(part)("test", part.examples[:count], part.items[:count], part.numbers[:count])
        found.append(Examinee(f"client{k}", random_params(model, "together", k), asked))
    return model, found


def evaluated(model, chosen):
    return evaluate(model, TASK, chosen, metrics={"exact_match": ExactMatch()}, max_new_tokens=6)


@pytest.mark.parametrize("counts", COUNTS)
def test_answers_are_those_of_each_by_itself(counts):
    model, asked = examinees(COUNTS[counts])
    together = evaluated(model, asked)
    alone = [found for one in asked for found in evaluated(model, [one])]
    assert [[one.prediction for one in part] for part in together] == [
        [one.prediction for one in part] for part in alone
    ]


@pytest.mark.parametrize("counts", COUNTS)
def test_losses_are_those_of_each_by_itself(counts):
    model, asked = examinees(COUNTS[counts])
    together = [one for part in evaluated(model, asked) for one in part]
    alone = [one for each in asked for part in evaluated(model, [each]) for one in part]
    values = [torch.tensor([one.scores["loss"].total for one in found]) for found in (together, alone)]
    torch.testing.assert_close(*values, atol=1e-4, rtol=1e-5)


def test_owners_keep_their_places():
    model, asked = examinees((2, 4))
    found = evaluated(model, asked)
    assert [[(one.owner, one.index) for one in part] for part in found] == [
        [("client0", 0), ("client0", 1)],
        [("client1", i) for i in range(4)],
    ]


def test_clients_answer_unlike_each_other():
    model, asked = examinees((7, 7))
    first, second = evaluated(model, asked)
    assert [one.prediction for one in first] != [one.prediction for one in second]


def test_the_flow_is_at_rest_afterwards():
    model, asked = examinees((2, 4))
    evaluated(model, asked)
    assert model.context.batch is None


@pytest.mark.parametrize("protocol", ["local_only", "federated"])
def test_a_state_is_measured_as_one_model_at_a_time(protocol, tmp_path, monkeypatch):
    run = small_run(tmp_path, protocol=protocol, share="lora_A" if protocol == "federated" else ".*")
    ready = prepare(run)
    stage = ready.stages[0]
    state, _ = train(run, ready=ready, rounds=2)
    means = []
    for together in (8, 1):
        monkeypatch.setattr("fedloom.runs.measure._TOGETHER", together)
        folder = RunDirectory.create(tmp_path / f"{protocol}{together}", {})
        means.append(measure(ready, folder, state, stage, phase="final", wall_s=0.0).means)
    assert means[0] == pytest.approx(means[1], rel=1e-5)
