"""Suites and pages of generated content: arms, sweeps and samples, and the control in the sentence of a claim."""

from dataclasses import replace

import pytest

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import ConfigError
from fedloom.benchmark.claims import conclude
from fedloom.benchmark.page.page import page
from fedloom.benchmark.runner import conclude_directory
from fedloom.benchmark.stated import Control
from fedloom.benchmark.suite import cells_of, load_suite, load_suite_directory
from support.paths import ROOT

pytestmark = pytest.mark.slow  # whole suites

SUITE = """
title = "generated"
seeds = [0, 1]
seed_keys = ["seed", "data.seed"]
score = "accuracy"

[common]
rounds = 1
clients = 3
model = { name = "mlp", inputs = [1, 8, 8], classes = 10, hidden = [8] }
task = { name = "classify" }
partition = { name = "iid" }
local = { lr = 0.1, steps = 3, batch = 8, optimiser = "sgd", schedule = "constant", clip_norm = 0.0 }
evaluation = { holdout = 0.0, metrics = [], resamples = 20 }

[data.digits]
data = { name = "digits", public = 60, test = 40, private = 60 }

[methods.plain]

[methods.gc]
prepare = [{ name = "generated", total = 20, guidance = "GUIDANCE" }]

[methods.real]
prepare = [{ name = "generated", generator = { name = "public" }, guidance = "prompt", total = 20 }]

[[claims]]
text = "generated is above plain"
kind = "above"
methods = ["gc"]
than = "plain"
beside = "real"
"""


def study_of(folder, guidance="prompt"):
    folder.mkdir()
    (folder / "file.toml").write_text(SUITE.replace("GUIDANCE", guidance))
    suite = load_suite(folder / "file.toml", (), quick=False)
    (folder / "suite").mkdir()
    (folder / "suite" / "suite.toml").write_text(config.dump(suite))
    for cell in cells_of(suite):
        list(api.start(cell.run, folder / "suite" / cell.folder))
    return folder / "suite"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_of(tmp_path_factory.mktemp("content") / "one")


def test_what_the_control_is_worth_stands_in_the_sentence_of_the_claim(study):
    (decision,) = conclude_directory(study).decisions
    assert "real - gc on digits" in decision.reason
    assert "not separable" in decision.reason or ", apart" in decision.reason


def test_the_page_has_budget_exposure_drift_cost_and_samples(study):
    text = page(study)
    for told in ("Generated examples", "visits to an own example", "drift", "samples", "seconds"):
        assert told in text
    assert "No private picture is shown, and none that began as one." in text


def test_what_a_private_picture_guided_is_not_shown(tmp_path):
    text = page(study_of(tmp_path / "mixed", "mixed"))
    assert "Generated examples" in text and "No private picture is shown" not in text


def test_a_page_without_generated_examples_has_no_section_of_them(study, tmp_path):
    suite = load_suite_directory(study).suite
    run = next(cell.run for cell in cells_of(suite) if cell.method == "plain")
    list(api.start(run, tmp_path / "runs" / "plain_s0"))
    assert "visits to an own example" not in page(tmp_path / "runs")


def test_a_control_that_is_no_method_and_one_of_another_kind_are_refused(tmp_path):
    file = tmp_path / "suite.toml"
    file.write_text(SUITE.replace("GUIDANCE", "prompt").replace('beside = "real"', 'beside = "reel"'))
    with pytest.raises(ConfigError, match=r"claims\[0\].beside: found 'reel'"):
        load_suite(file, (), quick=False)
    file.write_text(SUITE.replace("GUIDANCE", "prompt").replace('"above"', '"not_above"'))
    with pytest.raises(ConfigError, match="allowed is it for 'above' alone"):
        load_suite(file, (), quick=False)


def test_a_claim_waits_for_its_control(study, tmp_path):
    found = load_suite_directory(study)
    cells = {key: one for key, one in found.cells.items() if key[1] != "real"}
    missing = tuple(key for key in found.cells if key[1] == "real")
    (decision,) = conclude(replace(found, cells=cells, missing=missing)).decisions
    assert decision.state == "not decided" and "2 cells have not ended" in decision.reason


REQUIRED = (
    "the same number of real public examples",
    "public examples alone",
    "generated examples alone",
    "all data in one place",
    "every client alone",
    "every client alone, with generated examples, equal steps",
    "equal exposure",
)


def test_the_shipped_suite_has_every_control_arm():
    suite = load_suite(ROOT / "experiments" / "suites" / "fedgc_digits.toml", (), quick=False)
    assert tuple(one.arm for one in suite.controls) == REQUIRED and all(one.method for one in suite.controls)
    assert all(claim.beside == "real_public" for claim in suite.claims[:3]) and len(suite.seeds) >= 10


def test_a_missing_arm_is_printed_as_missing(study):
    found = load_suite_directory(study)
    suite = replace(found.suite, controls=(Control(arm="public examples alone", why="there is no public split"),))
    told = [*replace(found, suite=suite).absent_controls()]
    assert told == ["missing: public examples alone (there is no public split)"]
