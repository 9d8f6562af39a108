"""tools/pair_audit.py: pairs mismatched on purpose, how well IRA tells them, and what filters dropped of which kind."""

import itertools
import json
import math

import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.contracts.examples import chat
from fedloom.evaluation.difficulty import Difficulty
from fedloom.runs.audit_bounds import membership
from support.tools import tool

PAIRS = [chat(f"question {at}?", f"answer {at % 5}") for at in range(40)]


@pytest.fixture(scope="module")
def audit():
    return tool("pair_audit")


@pytest.mark.parametrize("seed", range(5))
def test_no_mismatched_pair_keeps_its_response_and_no_other_loses_it(audit, seed):
    found, wrong = audit.mismatched(PAIRS, 0.5, seed)
    assert sum(wrong) == 20
    for one, before, odd in zip(found, PAIRS, wrong, strict=True):
        assert one.prompt == before.prompt and (one.reference != before.reference) is odd


def test_responses_are_dealt_anew_and_none_is_made_up(audit):
    found, _ = audit.mismatched(PAIRS, 0.5, 0)
    assert sorted(one.reference for one in found) == sorted(one.reference for one in PAIRS)
    assert found == audit.mismatched(PAIRS, 0.5, 0)[0] != audit.mismatched(PAIRS, 0.5, 1)[0]


def test_one_response_for_most_is_refused(audit):
    with pytest.raises(DataError, match="10 of 10 chosen pairs have one response"):
        audit.mismatched([chat(f"question {at}?", "yes") for at in range(20)], 0.5, 0)


def test_alignment_is_the_loss_that_the_instruction_saves():
    assert Difficulty(Mean(2.0, 4.0), Mean(6.0, 4.0)).alignment == 1.0
    assert math.isnan(Difficulty(Mean(), Mean()).alignment)


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_of_scores_in_the_right_order(seed):
    random = np.random.default_rng(seed)
    right, wrong = random.integers(0, 6, 23) + 1.0, random.integers(0, 6, 17).astype(float)
    won = [(a > b) + (a == b) / 2 for a, b in itertools.product(right, wrong)]
    auc = membership(right, wrong, resamples=200).auc
    assert auc.value == pytest.approx(sum(won) / len(won))
    metrics = pytest.importorskip("sklearn.metrics")
    assert auc.value == pytest.approx(metrics.roc_auc_score([1] * 23 + [0] * 17, [*right, *wrong]))
    assert auc.low < auc.value < auc.high


def test_ira_tells_mismatched_pairs_of_the_world(audit, capsys):
    assert audit.main(["ira", "--seeds", "1", "--count", "60"]) == 0
    shown = capsys.readouterr().out
    assert "30 of 60 pairs mismatched" in shown and "holds: IRA tells mismatched pairs" in shown


def test_a_claim_that_chance_decides_fails(audit, capsys, monkeypatch):
    monkeypatch.setattr(audit, "mismatched", lambda pairs, share, seed: (pairs, [at % 2 == 0 for at in range(60)]))
    assert audit.main(["ira", "--seeds", "1", "--count", "60"]) == 1
    assert "FAILS: IRA tells mismatched pairs" in capsys.readouterr().out


def test_pairs_of_a_file_are_read_and_a_row_without_one_is_refused(audit, tmp_path):
    rows = [{"instruction": "who?", "output": "mira"}, {"instruction": "who?"}]
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n")
    assert audit.gold(path, 9) == [chat("who?", "mira")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="row 2 lacks instruction or output"):
        audit.gold(path, 9)


@pytest.fixture(scope="module")
def clients(audit):
    return audit.made(0, selector="random", noise=0.0, documents=12, sums=False)


def test_what_comes_to_a_filter_is_what_the_one_before_has_kept(audit, clients):
    found = audit.steps(clients)
    assert [one.name for one in found] == ["form", "copy", "grounding", "duplicate"]
    for one, after in itertools.pairwise(found):
        assert (after.right, after.wrong) == (one.right - one.right_dropped, one.wrong - one.wrong_dropped)
        assert after.before == pytest.approx(one.after)
    first = found[0]
    assert first.right + first.wrong + first.nothing == 120


def test_yields_are_what_the_last_filter_has_kept(audit, clients):
    last = audit.steps(clients)[-1]
    kept = last.right - last.right_dropped + last.wrong - last.wrong_dropped
    assert sum(audit.yields(clients)) * 12 == pytest.approx(kept)


def test_precisions_of_clients_are_of_what_the_last_filter_has_kept(audit, clients):
    last, found = audit.steps(clients)[-1], audit.precisions(clients)
    kept = [round(share * 12) for share in audit.yields(clients)]
    weighted = sum(n * share for n, share in zip([n for n in kept if n], found, strict=True)) / sum(kept)
    assert weighted == pytest.approx(last.after)


def test_ira_is_asked_about_pairs_and_not_about_documents_without_one(audit, clients):
    first, told = audit.steps(clients)[0], audit.by_ira(clients)
    assert (told.n_members, told.n_others) == (first.right, first.wrong)


def test_copies_of_an_example_are_found_and_right_pairs_mostly_kept(audit, clients):
    copy = next(one for one in audit.steps(clients) if one.name == "copy")
    assert copy.wrong_dropped > 5 * copy.right_dropped


def test_sums_are_grounded_where_they_are_allowed(audit):
    with_sums = audit.steps(audit.made(0, selector="per_datum", noise=0.0, documents=12, sums=True))
    without = audit.steps(audit.made(0, selector="per_datum", noise=0.0, documents=12, sums=False))
    assert with_sums[2].right_dropped == 0 < without[2].right_dropped


def test_the_table_is_printed(audit, capsys):
    assert audit.main(["filters", "--seeds", "1", "--documents", "6"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == [
        "filter", "form", "copy", "grounding", "duplicate", "yield", "precision",
    ]  # fmt: skip


def test_an_unknown_selector_ends_in_one_line(audit, capsys):
    assert audit.main(["filters", "--selector", "nearest", "--seeds", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
