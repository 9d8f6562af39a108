"""Policies: per key just inside and just outside; a key that is absent allows nothing."""

import datetime as dt
import json
import re

import pytest

from fedloom.base import config
from fedloom.base.errors import FedloomError
from fedloom.network.manifest import Manifest, manifest_of
from fedloom.network.policy import FORBIDDING, Policy, open_now, violations
from fedloom.runs.prepared import load_model
from support.small_runs import small_run

PRIVATE = {"name": "gaussian", "unit": "example", "noise_multiplier": 1.0, "epsilon": 0.0, "noise": "system"}
EXTENT = {"steps": 2, "bytes_up": 1000}


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")

    def made(**changes):
        run = small_run(folder, weighting="uniform", clients_per_round=3, min_clients=2, **changes)
        return manifest_of(run, load_model(run), dict.fromkeys("abcd", "north"))

    return {"private": made(privacy=PRIVATE), "noise free": made()}


def allowing(manifest, **changes):
    table = {
        "bases": [manifest.table["base_id"]],
        "rules": ["plain"],
        "tasks": ["sft"],
        "codecs": ["float32"],
        "max_rounds": 3,
        "max_steps": 2,
        "max_batch": 3,
        "max_length": 60,
        "max_bytes_up": 1000,
        "min_clients_per_round": 2,
        "secure_sum": "allowed",
        "privacy": {"unit": "example"},
    }
    return config.build(Policy, {key: value for key, value in (table | changes).items() if value is not None})


def test_what_lies_just_inside_is_allowed(manifests):
    assert violations(allowing(manifests["private"]), manifests["private"], **EXTENT) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bases": ["another"]}, "bases: found '.*', allowed is another"),
        ({"bases": None}, "bases: found '.*', nothing is allowed"),
        ({"rules": ["prox"]}, "rules: found 'plain', allowed is prox"),
        ({"rules": None}, "rules: found 'plain', nothing is allowed"),
        ({"tasks": None}, "tasks: found 'sft', nothing is allowed"),
        ({"codecs": None}, "codecs: found 'float32', nothing is allowed"),
        ({"max_rounds": 2}, "max_rounds: found 3, allowed is at most 2"),
        ({"max_rounds": None}, "max_rounds: found 3, allowed is at most 0"),
        ({"max_steps": 1}, "max_steps: found 2, allowed is at most 1"),
        ({"max_batch": 2}, "max_batch: found 3, allowed is at most 2"),
        ({"max_length": 59}, "max_length: found 60, allowed is at most 59"),
        ({"max_bytes_up": 999}, "max_bytes_up: found 1,000, allowed is at most 999"),
        ({"min_clients_per_round": 3}, "min_clients_per_round: found 2, allowed is at least 3"),
        ({"min_clients_per_round": None}, "min_clients_per_round: found 2, allowed is at least"),
        ({"secure_sum": None}, "secure_sum: found aggregator 'mean', required is 'secure_sum'"),
        ({"privacy": {"unit": "client_local"}}, "privacy.unit: found 'example', allowed is 'client_local'"),
    ],
)
def test_what_lies_just_outside_is_told_with_its_key(manifests, changes, text):
    (line,) = violations(allowing(manifests["private"], **changes), manifests["private"], **EXTENT)
    assert re.match(text, line)


def test_noise_free_runs_are_allowed_by_word_alone(manifests):
    manifest = manifests["noise free"]
    (line,) = violations(allowing(manifest), manifest, **EXTENT)
    assert line.startswith("privacy.max_noise_free: the run adds no noise")
    assert violations(allowing(manifest, privacy={"max_noise_free": True}), manifest, **EXTENT) == []


def test_noise_that_a_seed_tells_is_no_noise(manifests):
    table = json.loads(manifests["private"].text)
    table["settings"]["privacy"]["noise"] = "seeded"
    (line,) = violations(allowing(manifests["private"]), Manifest(table), **EXTENT)
    assert line == "privacy.noise: found 'seeded', allowed is 'system': who knows a seed knows the noise"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("protocol", 2, "protocol: the server's is 2, this node's 1"),
        ("fedloom", "9.1.0", "versions: the server runs fedloom 9.1, this node"),
    ],
)
def test_other_versions_are_named(manifests, key, value, text):
    table = json.loads(manifests["private"].text) | {key: value}
    (line,) = violations(allowing(manifests["private"]), Manifest(table), **EXTENT)
    assert line.startswith(text)
    allowed = allowing(manifests["private"], versions=["9.1"])
    assert (violations(allowed, Manifest(table), **EXTENT) == []) is (key == "fedloom")


def test_the_first_policy_forbids_everything_and_says_so_key_by_key(manifests):
    forbidding = config.build(Policy, config.parse(FORBIDDING, "policy.toml"))
    told = violations(forbidding, manifests["noise free"], **EXTENT)
    assert len(told) == 12 and forbidding == Policy() and not open_now(forbidding, dt.datetime.now(dt.UTC))
    keys = {item for item in vars(Policy()) if item != "privacy"} | {
        "unit",
        "max_epsilon",
        "max_noise_free",
        "seeded_noise",
    }
    assert keys == {line.removeprefix("# ").split(" = ")[0] for line in FORBIDDING.splitlines() if " = " in line}


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [("20-06", (20, 23, 0, 5), (6, 12, 19)), ("08-12", (8, 11), (7, 12)), ("00-24", (0, 23), ()), ("", (), (0, 12))],
)
def test_hours_are_a_span_of_the_day(hours, inside, outside):
    policy = Policy(hours=hours)
    at = lambda hour: dt.datetime(2026, 1, 1, hour, 30, tzinfo=dt.UTC)  # noqa: E731
    assert all(open_now(policy, at(hour)) for hour in inside)
    assert not any(open_now(policy, at(hour)) for hour in outside)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"max_round": 3}, "max_round: unknown key. Did you mean 'max_rounds'"),
        ({"hours": "8-12"}, "hours: found '8-12', allowed is a span"),
        ({"max_rounds": -1}, "max_rounds: found -1"),
        ({"privacy": {"max_epsilon": -0.1}}, "privacy.max_epsilon: found -0.1"),
        ({"secure_sum": "off"}, "secure_sum: found 'off'"),
    ],
)
def test_a_wrong_policy_is_refused(table, text):
    with pytest.raises(FedloomError, match=text):
        config.build(Policy, table)
