"""The best round by what clients hold out, and early stopping: alike in a run that was stopped, never by the test."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from fedloom import api
from fedloom.base.errors import ConfigError
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.learning_rate import learning_rate
from support.small_runs import small_run, small_table, write_records

WORDS = {"evaluation": {"max_new_tokens": 3, "resamples": 20, "every": 1, "choose_by": "loss", "metrics": []}}


def table(folder, **changes):
    """A run whose rate is so large that later rounds are worse."""
    made = small_table(folder, rounds=8, **WORDS)
    write_records(folder / "test.jsonl", records=2, seed=5)
    made["data"] = made["data"] | {"test_path": str(folder / "test.jsonl")}
    made["local"] = {"lr": 0.5, "steps": 4, "batch": 3, "schedule": "constant"}
    made["evaluation"] = made["evaluation"] | changes.pop("evaluation", {})
    return made | changes


def carried(made, out):
    from fedloom.runs.tuning import read_run

    return [*api.start(read_run(made), out)]


def metrics(out, name):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["name"] == name]


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """A finished run that chose."""
    folder = tmp_path_factory.mktemp("best")
    carried(table(folder, checkpoint_every=1), folder / "run")
    return folder


def by_round(out):
    found = metrics(out, "validation/loss")
    return {int(line["phase"][6:]): line["total"] / line["weight"] for line in found if line["phase"][:6] == "round_"}


def test_the_round_kept_scored_best_of_all(best):
    scores = by_round(best / "run")
    (kept,) = metrics(best / "run", "kept_round")
    assert sorted(scores) == [*range(1, 9)] and kept["total"] == min(scores, key=scores.get)
    assert kept["total"] < 8


def test_the_result_is_that_round(best):
    (kept,) = metrics(best / "run", "kept_round")
    shutil.rmtree(best / "shorter", ignore_errors=True)
    alone = table(best, rounds=int(kept["total"]))
    alone["evaluation"] = {"max_new_tokens": 3, "resamples": 20, "metrics": []}
    carried(alone, best / "shorter")
    name = "adapter/adapter_model.safetensors"
    chosen, right = (load_file(best / run / name) for run in ("run", "shorter"))
    assert all(torch.equal(chosen[key], right[key]) for key in right)


def test_the_final_scores_are_those_of_the_round_kept(best):
    scores = by_round(best / "run")
    final = [line for line in metrics(best / "run", "validation/loss") if line["phase"] == "final"]
    assert final[0]["total"] / final[0]["weight"] == min(scores.values())


def test_training_ends_when_no_better_round_is_waited_for(tmp_path):
    made = table(tmp_path, rounds=20, evaluation={"patience": 2})
    carried(made, tmp_path / "run")
    (kept,) = metrics(tmp_path / "run", "kept_round")
    assert max(by_round(tmp_path / "run")) == kept["total"] + 2


@pytest.mark.parametrize("protocol", ["local_only", "centralised"])
def test_baselines_choose_too(tmp_path, protocol):
    carried(table(tmp_path, rounds=4, protocol=protocol), tmp_path / "run")
    lines = metrics(tmp_path / "run", "validation/loss")
    for leg in {line["leg"] for line in lines if line["phase"] == "final"}:
        told = {line["phase"]: line["total"] / line["weight"] for line in lines if line["leg"] == leg}
        rounds = [value for phase, value in told.items() if phase.startswith("round_")]
        assert told["final"] == min(rounds)


def test_a_run_that_was_stopped_chooses_the_same(best, tmp_path):
    from fedloom.runs.tuning import read_run

    class StopError(Exception):
        pass

    run = read_run(table(best, checkpoint_every=2))
    for stop_at in (1, 3, 5):
        with pytest.raises(StopError):
            for event in api.start(run, tmp_path / f"run{stop_at}"):
                if isinstance(event, api.RoundDone) and event.record.round == stop_at:
                    raise StopError
        for _ in api.resume(tmp_path / f"run{stop_at}")[1]:
            pass
        name = "adapter/adapter_model.safetensors"
        assert (tmp_path / f"run{stop_at}" / name).read_bytes() == (best / "run" / name).read_bytes()


def test_private_parts_are_those_of_the_round_kept(tmp_path):
    """Also of clients that had not trained by then: they have what all begin with."""
    made = table(tmp_path, rounds=6, share="lora_B", clients_per_round=1)
    carried(made, tmp_path / "run")
    scores = by_round(tmp_path / "run")
    final = [line for line in metrics(tmp_path / "run", "validation/loss") if line["phase"] == "final"]
    assert sum(one["total"] for one in final) / sum(one["weight"] for one in final) == pytest.approx(
        min(scores.values())
    )


def test_a_number_replaces_none():
    from types import SimpleNamespace

    from fedloom.federated.rounds import State
    from fedloom.runs.choosing import chosen, considered

    run = SimpleNamespace(evaluation=SimpleNamespace(choose_by="loss", metrics=()))
    state = State(0, torch.zeros(2), {}, {}, {})
    for number, loss in enumerate([float("nan"), 1.0, 0.5, 0.7], 1):
        state = considered(
            run, State(number, torch.full((2,), float(number)), {}, {}, {}, best=state.best), {"validation/loss": loss}
        )
    assert chosen(state)[1] == 3 and chosen(state)[0].params_P.tolist() == [3.0, 3.0]


def test_a_score_that_nobody_has_is_refused():
    from types import SimpleNamespace

    from fedloom.federated.rounds import State
    from fedloom.runs.choosing import considered

    run = SimpleNamespace(evaluation=SimpleNamespace(choose_by="loss", metrics=()))
    state = State(1, torch.zeros(2), {}, {}, {})
    with pytest.raises(ConfigError, match="nothing that is held out has 'loss'"):
        considered(run, state, {"validation/other": 1.0})
    assert considered(run, state, {"test/loss": 1.0}) is state


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": {"every": 0}}, "evaluation.every: found 0 with choose_by"),
        ({"evaluation": {"choose_by": "", "patience": 1}}, "evaluation.patience: found without choose_by"),
        ({"evaluation": {"choose_by": "rouge_l"}}, "found 'rouge_l', allowed are loss"),
        ({"evaluation": {"choose_by": "answer_length", "metrics": ["answer_length"]}}, "allowed are loss"),
        ({"privacy": {"name": "gaussian", "noise_multiplier": 1.0}, "weighting": "uniform"}, "with privacy"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        carried(table(tmp_path, **changes), tmp_path / "run")


def test_rounds_are_never_chosen_by_what_is_reported(tmp_path):
    run = small_run(tmp_path, rounds=2, **WORDS)
    with pytest.raises(ConfigError, match="what is chosen by is not reported"):
        [*api.start(run, tmp_path / "run")]
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------------- schedule


def rates(rounds=10, **settings):
    local = LocalSettings(lr=1.0, **settings)
    return [learning_rate(local, round=t, rounds=rounds) for t in range(rounds)]


def test_a_linear_rate_falls_in_equal_steps():
    assert rates(5, schedule="linear", lr_final=0.5) == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6])


def test_a_warm_up_rises_to_the_rate_in_equal_steps():
    assert rates(6, schedule="constant", warmup=3) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_behind_a_warm_up_the_schedule_is_that_of_a_shorter_run(schedule):
    assert rates(10, schedule=schedule, warmup=4)[4:] == rates(6, schedule=schedule)


def test_no_warm_up_is_the_published_cosine():
    import math

    assert rates(7) == [0.0 + 0.5 * 1.0 * (1 + math.cos(math.pi * t / 7)) for t in range(7)]


def test_a_warm_up_of_all_rounds_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"local\.warmup: found 3 of 3 rounds"):
        small_run(tmp_path, rounds=3, local={"warmup": 3})
