"""Eight methods against their golden file, and the file against the oracles that wrote it."""

import json
import runpy

import numpy as np
import pytest
import torch

from fedloom.contracts.federated import Rule, ServerOpt
from support.paths import GOLDEN
from support.toy_training import make, trace

SCRIPT = runpy.run_path(str(GOLDEN / "make_eight_methods.py"))
FILE = json.loads((GOLDEN / "eight_methods.json").read_text())
METHODS = SCRIPT["METHODS"]


def by_fedloom(method, dtype):
    rule, rule_settings, server, server_settings, weighting = METHODS[method]
    pair = make(Rule, rule, **rule_settings), make(ServerOpt, server, **server_settings)
    clients, schedule = SCRIPT["clients"](), SCRIPT["SCHEDULE"]
    if method == "local":
        clients, schedule = [clients[2]], [[0]] * 3
    settings = {"schedule": schedule, "steps": SCRIPT["K"], "lr": SCRIPT["ETA"], "weighting": weighting}
    return trace(clients, SCRIPT["START"], *pair, dtype=dtype, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_method_gives_the_golden_values(method, dtype):
    np.testing.assert_allclose(by_fedloom(method, dtype), FILE["values"][method], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_golden_file_is_what_the_oracles_give(method):
    np.testing.assert_allclose(SCRIPT["compute"]()[method], FILE["values"][method], rtol=0, atol=1e-12)


def test_golden_file_holds_eight_methods():
    assert sorted(FILE["values"]) == sorted(METHODS) and len(METHODS) == 8


def test_golden_file_names_its_command():
    assert FILE["header"]["command"] == SCRIPT["COMMAND"]


@pytest.mark.parametrize("method", METHODS)
def test_golden_values_have_both_signs(method):
    assert np.min(FILE["values"][method]) < -0.1 and np.max(FILE["values"][method]) > 0.1


def test_golden_methods_differ_by_far_more_than_the_tolerance():
    last = np.array([rounds[-1] for rounds in FILE["values"].values()])
    apart = np.abs(last[:, None] - last[None]).max(axis=2)[np.triu_indices(len(last), 1)]
    assert apart.min() > 1e-3
