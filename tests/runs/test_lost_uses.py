"""A round that was lost with its process had been sent: with fresh noise it has to be paid for again."""

import json

import pytest

import fedloom
from fedloom.runs.execute import RoundDone
from support.small_runs import small_run

CHANGES = {"rounds": 4, "checkpoint_every": 4, "weighting": "uniform", "evaluation": {"metrics": []}}


def uses_after_a_kill(folder, noise, unit):
    """The uses of a run stopped after three rounds, none of them saved, and resumed."""
    privacy = {"name": "gaussian", "unit": unit, "noise": noise, "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 1e-3}
    run = small_run(folder, privacy=privacy, **CHANGES)
    events, done = fedloom.start(run, folder / "run"), 0
    for event in events:
        done += isinstance(event, RoundDone)
        if done == 3:
            break
    events.close()
    list(fedloom.resume(folder / "run")[1])
    return json.loads((folder / "run" / "privacy.json").read_text())["uses"]


@pytest.mark.parametrize(("unit", "a_round"), [("example", 2), ("client", 1), ("client_local", 1)])
def test_with_the_systems_noise_lost_rounds_are_counted(tmp_path, unit, a_round):
    assert uses_after_a_kill(tmp_path, "system", unit) == (3 + 4) * a_round


def test_with_seeded_noise_a_repeated_round_is_the_same_use(tmp_path):
    assert uses_after_a_kill(tmp_path, "seeded", "example") == 4 * 2
