"""The simulation of `tools/coverage.py` in miniature: few samples, so wide tolerances, but of the kinds that failed."""

import pytest

from support.tools import tool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script():
    return tool("coverage")


@pytest.mark.parametrize(
    "name",
    [
        "show: share of 0.5, 60 facts in 3 wordings",
        "show: share of 0.95, 60 facts in 3 wordings",
        "compare: shares of 0.5, 60 facts in 3 wordings",
        "seeds: share of 0.5, 5 seeds ask the same",
        "seeds: difference of losses, 5 seeds ask questions of their own",
        "tasks: mean of 100 items",
    ],
)
def test_interval_holds_the_true_value_about_95_times_in_100(script, name):
    assert script.rate(name, 60) >= 0.86  # binomial(60, 0.95) less three standard deviations


@pytest.mark.parametrize(
    "name",
    [
        "p of swapped answers below 0.05, 60 facts in 3 wordings",
        "claim: above holds",
        "claim: above of 4 methods does not hold",
    ],
)
def test_verdict_errs_at_most_5_times_in_100(script, name):
    assert script.rate(name, 40) <= 0.15  # binomial(40, 0.05) and three standard deviations


def test_wordings_drawn_one_by_one_would_not_cover(script, monkeypatch):
    def apart(*given):
        return script.replace(table(*given), cluster_N=())

    table = script.table
    monkeypatch.setattr(script, "table", apart)
    assert script.rate("show: loss, 60 facts in 3 wordings", 60) < 0.86


def test_lines_are_kept_and_printed_again(script, tmp_path, capsys):
    words = ["--out", str(tmp_path), "--replicates", "2", "--only", "tasks: mean"]
    assert script.main(words) in (0, 1)
    first = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace("1.0", "0.25").replace("0.5", "0.25"))
    script.main(words)
    assert "| tasks: mean of 100 items | 0.250 (out of tolerance) |" in capsys.readouterr().out and first
