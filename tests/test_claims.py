"""The claims script in miniature: runs, tables, three claim lines, an exit code, and going on after a stop."""

import importlib.util
import shutil
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[1] / "experiments" / "claims.py"
SMALL = {
    "rounds": 1,
    "data.n_clients": 3,
    "data.records": 6,
    "data.n_drugs": 2,
    "data.n_companies": 0,
    "evaluation.limit": 4,
    "evaluation.max_new_tokens": 2,
    "evaluation.resamples": 20,
}
WORDS = [word for key, value in SMALL.items() for word in ("--override", f"{key}={value}")]


def script():
    spec = importlib.util.spec_from_file_location("claims", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six small runs, of which a second call must not run any again."""
    folder = tmp_path_factory.mktemp("claims")
    script().main(["--out", str(folder), "--seeds", "2", *WORDS])
    return folder


def again(folder, *words):
    return script().main(["--out", str(folder), "--seeds", "2", *WORDS, *words])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jsonl")}


def test_each_finished_run_has_a_line(folder, capsys):
    again(folder)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("seed ")] == [
        ["seed", str(seed), protocol] for seed in range(2) for protocol in ("federated", "local_only", "centralised")
    ]


def test_claims_are_three_lines_with_a_verdict(folder, capsys):
    again(folder)
    claimed = [line for line in capsys.readouterr().out.splitlines() if "held-out wordings: " in line]
    assert len(claimed) == 3 and all(line.endswith((": holds", ": does not hold")) for line in claimed)


def test_compare_tables_over_all_seeds_are_printed(folder, capsys):
    again(folder)
    out = capsys.readouterr().out
    assert "plain (2 seeds)" in out and "plain - local_only" in out


def test_exit_code_is_1_where_a_claim_does_not_hold(folder, capsys):
    code = again(folder)
    assert (code == 1) == (": does not hold" in capsys.readouterr().out)


@pytest.mark.parametrize(
    ("verdicts", "code"), [((0.2, 0.0, 0.2), 0), ((0.05, 0.0, 0.2), 1), ((0.2, -0.5, 0.2), 1), ((0.2, 0.0, -0.2), 1)]
)
def test_all_three_claims_are_needed(folder, monkeypatch, verdicts, code):
    module = script()
    gains = iter(module.Interval(value, value - 0.01, value + 0.01, 2) for value in verdicts)
    monkeypatch.setattr(module, "difference", lambda *_, **__: next(gains))
    assert module.main(["--out", str(folder), "--seeds", "2", *WORDS]) == code


def test_finished_runs_are_not_run_again(folder):
    before = contents(folder)
    again(folder)
    assert contents(folder) == before


def test_unfinished_run_is_resumed_to_the_same_scores(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "claims")
    report = tmp_path / "claims" / "local_only_s1" / "report.md"
    report.unlink()
    again(tmp_path / "claims")
    scores = "local_only_s1/results.jsonl"
    assert report.exists() and (tmp_path / "claims" / scores).read_bytes() == (folder / scores).read_bytes()


def test_other_settings_than_the_folder_has_are_refused(folder, capsys):
    assert again(folder, "--override", "rounds=2") == 2
    assert "differs from its directory in rounds" in capsys.readouterr().err


def test_no_seed_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        script().main(["--out", str(tmp_path), "--seeds", "0"])
    assert "--seeds: found 0, allowed is 1 or more" in capsys.readouterr().err
