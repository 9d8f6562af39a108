"""An aggregator is one file of about twenty lines, found by its name in a run file; so is one with a memory."""

import pytest
import torch

from fedloom import api
from fedloom.base.plugin import lookup
from fedloom.contracts.aggregation import Aggregator
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import read_run
from support import numbers
from support.plugins import contract_tests_passed
from support.resuming import logs, unbroken_and_stopped

TRIMMED = '''"""The mean of each number without its largest and its smallest value (Yin et al. 2018, 1803.01498)."""

from fedloom.base.plugin import plugin
from fedloom.base.rows import check_matrix
from fedloom.contracts.aggregation import Aggregator

__all__ = ["Trimmed"]


@plugin("trimmed")
class Trimmed(Aggregator):
    """Coordinate-wise trimmed mean; of one row or two it is the mean."""

    def __call__(self, rows_NP, weight_N, frame):
        check_matrix(rows_NP, weight_N)
        order_NP = rows_NP.argsort(0)
        order_NP = order_NP[1:-1] if len(rows_NP) > 2 else order_NP
        weight_NP = weight_N[order_NP]
        return (rows_NP.gather(0, order_NP) * weight_NP).sum(0) / weight_NP.sum(0)
'''

SUSPICIOUS = '''"""Rows weighted by how near their clients have been to the mean so far: an aggregator with a memory."""

import torch

from fedloom.base.plugin import plugin
from fedloom.base.rows import check_matrix
from fedloom.contracts.aggregation import Aggregate, Aggregator

__all__ = ["Suspicious"]


@plugin("suspicious")
class Suspicious(Aggregator):
    """The mean by what is known of each client from the rounds before."""

    def __call__(self, rows_NP, weight_N, frame):
        return self.aggregate(rows_NP, weight_N, frame).row_P

    def aggregate(self, rows_NP, weight_N, frame):
        check_matrix(rows_NP, weight_N)
        far_N = torch.stack([frame.state.get(client, torch.zeros(())) for client in frame.clients])
        trust_N = weight_N / (1 + far_N)
        row_P = trust_N / trust_N.sum() @ rows_NP
        new = zip(frame.clients, far_N + (rows_NP - row_P).norm(dim=1), strict=True)
        state = frame.state | {client: far.clone() for client, far in new}
        return Aggregate(row_P, {"farthest": float(max(state.values()))}, state)
'''


def written(folder, name, text):
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    named = {"plugins": ["support.numbers", name], "aggregator": name}
    return numbers.TABLE | {"clients_per_round": 3} | named


@pytest.mark.slow
def test_a_new_aggregator_holds_the_contract_of_all(tmp_path):
    """The contract tests run on it because it is registered: nobody lists it."""
    assert len(TRIMMED.splitlines()) <= 22
    written(tmp_path, "trimmed", TRIMMED)
    assert contract_tests_passed(tmp_path, "trimmed", "tests/contracts/test_aggregators.py") > 50


def test_a_new_aggregator_is_named_in_a_run_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    list(api.start(read_run(written(tmp_path, "trimmed", TRIMMED)), tmp_path / "run"))
    assert RunDirectory.open(tmp_path / "run").complete
    rows_NP = torch.tensor([[0.0], [1.0], [3.0], [100.0]])
    assert float(lookup(Aggregator, "trimmed")()(rows_NP, torch.full((4,), 0.25), None)) == 2.0


def test_what_an_aggregator_remembers_is_kept_from_round_to_round_and_over_a_stop(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    run = read_run(written(tmp_path, "suspicious", SUSPICIOUS))
    unbroken, stopped = unbroken_and_stopped(run, tmp_path, after=4)
    assert logs(stopped) == logs(unbroken)
    last = sorted((unbroken / "checkpoints").iterdir())[-2]
    assert (last / "history.safetensors").is_file()
    metrics = logs(unbroken)["metrics.jsonl"]
    far = [line["total"] for line in metrics if line["name"] == "aggregator_farthest"]
    assert len(far) == 4 and far == sorted(far) and far[0] > 0
