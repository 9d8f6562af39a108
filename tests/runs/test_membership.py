"""Membership inference: measures against oracles, what is asked of whom, over-fitted models, and no signal."""

import json

import numpy as np
import pytest

from fedloom import api
from fedloom.base.errors import ConfigError, DataError
from fedloom.benchmark.page.page import page
from fedloom.contracts.generation import is_generated
from fedloom.results.outcome import outcome
from fedloom.results.signal import signal_lines
from fedloom.runs.directory import RunDirectory
from fedloom.runs.membership import asked_of, balanced_accuracy, membership
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support.digits import changed

TABLE = changed(
    rounds=15,
    clients=3,
    model={"hidden": [64]},
    data={"test": 600, "private": 45},
    partition={"name": "iid"},
    local={"lr": 0.3, "steps": 50, "batch": 15},
    evaluation={"membership": {"references": 4}},
)


def scores(folder, phase="final"):
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return [one for one in lines if one["set"] == "membership" and one["phase"] == phase]


def mean(found, name):
    return float(np.mean([one["scores"][name][0] / one["scores"][name][1] for one in found]))


@pytest.fixture(scope="module")
def over_fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("membership") / "run"
    list(api.start(read_run(TABLE), folder))
    return folder


# ------------------------------------------------------------------------------------------------------------- measures


def test_the_threshold_comes_from_the_other_half():
    random = np.random.default_rng(0)
    members, others = random.normal(0.5, 1, 60), random.normal(0, 1, 80)
    shares = []
    for fitted, asked in ((0, 1), (1, 0)):
        half, rest = (members[fitted::2], others[fitted::2]), (members[asked::2], others[asked::2])
        best = max(sorted([*half[0], *half[1]]), key=lambda t, h=half: (h[0] >= t).mean() + (h[1] < t).mean())
        shares.append(((rest[0] >= best).mean() + (rest[1] < best).mean()) / 2)
    assert balanced_accuracy(members, others) == pytest.approx(np.mean(shares))


def test_without_a_difference_accuracy_is_chance():
    random = np.random.default_rng(1)
    found = [balanced_accuracy(random.normal(size=40), random.normal(size=40)) for _ in range(300)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.01)


# --------------------------------------------------------------------------------------------------------- who is asked


def test_members_are_a_clients_own_examples_whatever_it_trains_on_and_others_are_of_the_same_classes():
    ready = prepare(read_run(TABLE | {"prepare": [{"name": "generated", "own": False, "total": 20}]}))
    assert all(is_generated(one) for owned in ready.division.train.values() for one in owned)
    for client, one in asked_of(ready, "label").items():
        labels = [sorted(item.label for item in part) for part in (one.members, one.others, one.unseen)]
        times = len(one.others) // len(one.members)
        assert labels[1] == labels[2] == sorted(labels[0] * times) and 1 <= times <= 8
        own = sorted(int(example.label) for example in ready.owned[client])
        assert len(one.members) == len(own) and labels[0] == own


def test_own_held_out_examples_come_before_the_common_test():
    changes = {"evaluation": TABLE["evaluation"] | {"holdout": 0.5, "membership": {}}, "clients": 1}
    ready = prepare(read_run(TABLE | changes | {"data": TABLE["data"] | {"private": 300}}))
    (validation,) = ready.division.validation.values()
    keys = {example.inputs.tobytes() for example in validation}
    (one,) = asked_of(ready, "label").values()
    assert all(item.inputs.numpy().tobytes() in keys for item in one.others + one.unseen)


def test_nobody_to_tell_members_from_is_refused():
    with pytest.raises(DataError, match=r"evaluation\.membership: no client has two examples"):
        asked_of(prepare(read_run(TABLE | {"data": TABLE["data"] | {"test": 1}})), "label")


def test_one_reference_model_is_refused():
    with pytest.raises(ConfigError, match="references: found 1"):
        read_run(TABLE | {"evaluation": {"membership": {"references": 1}}})


# -------------------------------------------------------------------------------------------------------- what is found


def test_an_over_fitted_model_gives_its_members_away_and_nothing_else(over_fitted):
    found = scores(over_fitted)
    assert [one["tags"]["client"] for one in found] == ["client_000", "client_001", "client_002"]
    assert mean(found, "membership_auc") > 0.58 and mean(found, "reference_auc") > 0.6
    assert mean(found, "membership_unseen") == pytest.approx(0.5, abs=0.1)


def test_before_training_nothing_is_found(over_fitted):
    found = scores(over_fitted, "base")
    assert mean(found, "membership_auc") == pytest.approx(0.5, abs=0.1) and "reference_auc" not in found[0]["scores"]


def test_a_client_counts_once_however_many_pairs_it_has(over_fitted):
    assert all(weight == 1 for one in scores(over_fitted) for _, weight in one["scores"].values())


def test_a_model_of_ones_own_is_asked_about_its_owner_alone():
    ready = prepare(
        read_run(TABLE | {"protocol": "local_only", "evaluation": TABLE["evaluation"] | {"membership": {}}})
    )
    params = ready.model.trainable
    found = membership(ready, [("client_001", params), ("client_002", params)], final=True)
    assert [(one.owner, one.tags["client"]) for one in found] == [("client_001",) * 2, ("client_002",) * 2]


def test_the_ledger_says_that_own_examples_were_looked_at(over_fitted):
    lines = map(json.loads, (over_fitted / "ledger.jsonl").read_text().splitlines())
    told = [line["client"] for line in lines if line["what"] == "final: how its own examples are told from others"]
    assert told == ["client_000", "client_001", "client_002"]


def test_with_privacy_the_owner_is_warned_that_no_epsilon_covers_it():
    privacy = {"name": "gaussian", "unit": "example", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 0.001}
    ready = prepare(read_run(TABLE | {"weighting": "uniform", "privacy": privacy}))
    assert any("no epsilon covers it" in note for note in ready.notes)
    assert not any("no epsilon covers it" in note for note in prepare(read_run(TABLE)).notes)


def test_without_the_setting_nobody_is_asked():
    ready = prepare(read_run(TABLE | {"evaluation": {"metrics": [], "holdout": 0.0}}))
    assert membership(ready, [("", ready.model.trainable)], final=True) == []


def run_with(auc, control):
    """An outcome whose attacks found these."""

    class Interval(float):
        value = property(float)

    def fake(runs, where, score):
        return None if auc is None else Interval({"membership_auc": auc, "membership_unseen": control}[score])

    return fake


@pytest.mark.parametrize(
    ("auc", "control", "end"),
    [
        (0.54, 0.5, "no signal: no privacy claim"),
        (0.7, 0.54, "the control is off: no privacy claim"),
        (0.7, 0.5, "on examples that no model saw"),
    ],
)
def test_without_a_signal_there_is_no_privacy_claim(auc, control, end, monkeypatch):
    monkeypatch.setattr("fedloom.results.signal.estimate", run_with(auc, control))
    (line,) = signal_lines({})
    assert line.endswith(end)


def test_where_nothing_was_tried_nothing_is_said(monkeypatch):
    monkeypatch.setattr("fedloom.results.signal.estimate", run_with(None, None))
    assert signal_lines({}) == []


def test_the_report_and_the_page_say_what_was_found(over_fitted):
    (told,) = signal_lines({0: outcome(RunDirectory.open(over_fitted))})
    assert told.startswith("membership inference: AUC 0.")
    assert told in (over_fitted / "report.md").read_text()
    assert "membership inference: AUC 0." in page(over_fitted)
