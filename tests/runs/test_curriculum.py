"""Training level by level: examples in the order of their alignment, and rounds that each see one part of them."""

import json

import pytest
import torch

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Document, chat
from fedloom.contracts.stages import Owner, Preparation
from fedloom.federated.batching import level
from fedloom.federated.rounds import begin, train
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from fedloom.world import World
from support.numbers import TABLE
from support.resuming import adapters, logs, run_to_the_end
from support.small_runs import small_run

PART = '''"""A part of the examples as they stand."""

from fedloom.base.plugin import plugin
from fedloom.contracts.stages import Made, Preparation


@plugin("part")
class Part(Preparation):
    """The part at a place."""

    at: int = 0
    of: int = 2

    def __call__(self, examples, owner):
        n = len(examples)
        return Made(examples[n * self.at // self.of : n * (self.at + 1) // self.of])
'''


@pytest.mark.parametrize("n_examples", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_levels_cover_all_examples_in_order_and_none_is_empty(n_examples, levels):
    found = [level(n_examples, levels, round=one, rounds=2 * levels) for one in range(2 * levels)]
    assert found[::2] == found[1::2] and all(found)
    assert sorted({at for part in found for at in part}) == list(range(n_examples))
    assert [part.start for part in found] == sorted(part.start for part in found)
    if n_examples >= levels:
        assert sum(map(len, found[::2])) == n_examples


def test_one_level_is_all_of_them_in_every_round():
    assert {level(9, 1, round=one, rounds=4) for one in range(6)} == {range(9)}


def losses_and_params(run, rounds):
    """What the first rounds of a run come to."""
    ready = prepare(run)
    (stage,) = ready.stages
    state, losses = begin(stage.plan, ready.layout.row({"": ready.shared})), []
    for done, record in train(stage.plan, state, run.engine.start(stage.work)):
        losses.append(record.loss.value)
        state = done
        if len(losses) == rounds:
            break
    return losses, state.params_P


def test_a_round_trains_on_its_level_as_if_there_were_no_other_examples(tmp_path, monkeypatch):
    (tmp_path / "of_parts.py").write_text(PART)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = {"plugins": ["support.numbers", "of_parts"]}
    local = TABLE["local"]
    whole = read_run(TABLE | {"rounds": 2, "local": local | {"curriculum": 2}})
    first = read_run(TABLE | plugins | {"rounds": 2, "weighting": "uniform", "prepare": [{"name": "part", "at": 0}]})
    whole_uniform = read_run(TABLE | {"rounds": 2, "weighting": "uniform", "local": local | {"curriculum": 2}})
    losses, params_P = losses_and_params(whole_uniform, 1)
    expected, expected_P = losses_and_params(first, 1)
    assert losses == expected and torch.equal(params_P, expected_P)
    assert losses_and_params(whole, 1)[0] == losses
    plain = read_run(TABLE | {"rounds": 2, "weighting": "uniform"})
    assert losses_and_params(plain, 1)[0] != losses


def test_without_a_curriculum_nothing_changes():
    plain, one = (read_run(TABLE | {"local": TABLE["local"] | more}) for more in ({}, {"curriculum": 1}))
    assert losses_and_params(plain, 3)[0] == losses_and_params(one, 3)[0]


# ----------------------------------------------------------------------------------------------- the order by alignment

GOLD = [asked for _, asked in World(0).examples(8)]
WRONG = [chat(one.prompt[-1].text, other.reference) for one, other in zip(GOLD, reversed(GOLD), strict=True)]


def test_pairs_that_fit_come_before_others_and_scores_are_kept(tmp_path):
    made = lookup(Preparation, "by_alignment")()([*WRONG, *GOLD], Owner("c0", 0, tmp_path))
    assert sorted(made.examples, key=repr) == sorted([*WRONG, *GOLD], key=repr) and made.counts == {"examples": 16}
    assert sum(one in GOLD for one in made.examples[:8]) >= 7
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores == sorted(scores, reverse=True) and len(scores) == 16


def test_what_has_no_score_comes_last():
    long = chat("which? " * 3000, "that")
    found = lookup(Preparation, "by_alignment")()([long, *GOLD[:3]], Owner("c0", 0, None)).examples
    assert found[-1] == long


def test_documents_have_no_alignment():
    with pytest.raises(DataError, match="it has no instruction"):
        lookup(Preparation, "by_alignment")()([Document("a text.")], Owner("c0", 0, None))


def test_a_run_goes_through_levels_of_aligned_examples(tmp_path):
    model = {"name": "causal_lm", "path": str(tmp_path / "model")}
    task = {"name": "sft", "template": {"name": "vicuna"}}
    aligned = [{"name": "by_alignment", "model": model, "task": task}]
    small_run(tmp_path)
    run = small_run(tmp_path, prepare=aligned, local={"lr": 0.02, "steps": 2, "batch": 3, "curriculum": 3})
    run_to_the_end(run, tmp_path / "levels")
    run_to_the_end(small_run(tmp_path, prepare=aligned), tmp_path / "all")
    assert adapters(tmp_path / "levels") != adapters(tmp_path / "all") and logs(tmp_path / "levels")


# ----------------------------------------------------------------------------------------------------- what is refused


def test_more_levels_than_rounds_are_refused():
    with pytest.raises(ConfigError, match=r"local.curriculum: found 5 levels in 4 rounds"):
        read_run(TABLE | {"local": TABLE["local"] | {"curriculum": 5}})


def test_privacy_of_examples_refuses_a_curriculum_and_an_order(tmp_path):
    private = {"name": "gaussian", "noise_multiplier": 0.3, "epsilon": 0.0, "delta": 0.01}
    base = TABLE | {"privacy": private, "weighting": "uniform"}
    with pytest.raises(ConfigError, match=r"local.curriculum: found 2 with privacy of examples"):
        read_run(base | {"local": TABLE["local"] | {"curriculum": 2}})
    with pytest.raises(ConfigError, match="'by_alignment', which puts examples in an order"):
        read_run(base | {"prepare": ["by_alignment"]})
