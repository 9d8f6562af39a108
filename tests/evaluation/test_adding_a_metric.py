"""A metric is one file of a few lines, found by its name in a run file; nobody lists it."""

import pytest

from fedloom.base.plugin import lookup
from fedloom.contracts.evaluation import Metric
from fedloom.contracts.examples import chat
from fedloom.contracts.model import Prediction
from fedloom.runs.tuning import read_run
from support.plugins import contract_tests_passed

FIRST_WORD = '''"""Share of answers that begin with the first word of the reference."""

from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference, normalise

__all__ = ["FirstWord"]


@plugin("first_word")
class FirstWord(OfReference):
    """1 if both begin alike, else 0."""

    def score(self, text, reference):
        """Return 0 or 1."""
        return float(normalise(text).split()[:1] == normalise(reference).split()[:1])
'''


@pytest.mark.slow
def test_a_new_metric_holds_the_contract_of_all(tmp_path):
    (tmp_path / "first_word.py").write_text(FIRST_WORD, encoding="utf-8")
    assert contract_tests_passed(tmp_path, "first_word", "tests/contracts/test_metric_contracts.py") >= 10


def test_a_new_metric_is_named_in_a_run_file(tmp_path, monkeypatch):
    (tmp_path / "first_word.py").write_text(FIRST_WORD, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    run = read_run({"plugins": ["first_word"], "evaluation": {"metrics": ["first_word"]}})
    assert [type(metric) for metric in run.evaluation.metrics] == [lookup(Metric, "first_word")]
    (metric,) = run.evaluation.metrics
    told = [metric(chat("which?", "Millhaven of course"), Prediction(text, 1)) for text in ("millhaven", "the town")]
    assert [one.value for one in told] == [1.0, 0.0]
