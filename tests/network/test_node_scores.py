"""Evaluation at nodes: the means of one process, what a policy lets out, and what a server may not ask or be told."""

import json

import pytest

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.mean import Mean
from fedloom.network.hub import Hub
from fedloom.network.open_round import Verdict
from fedloom.network.scoring import may_tell, planned_round, scores_from, scores_to
from fedloom.runs.measure import OwnScores
from support.federation import ASKED, asked_federation, federation
from support.resuming import adapters, logs, run_to_the_end
from support.small_runs import small_run

pytestmark = pytest.mark.timeout(120)
ALLOWED = ["loss", "exact_match"]


def validation(folder):
    lines = [line for line in logs(folder)["metrics.jsonl"] if line["name"].startswith("validation/")]
    return {
        (line["phase"], line["name"]): (line["total"], line["weight"]) for line in lines if line["name"].count("/") == 1
    }


def asked_lines(folder):
    return sorted(
        json.dumps(line, sort_keys=True) for line in logs(folder)["ledger.jsonl"] if "held-out" in line.get("what", "")
    )


@pytest.mark.parametrize("changes", [{}, {"share": "lora_B", "rule": "plain"}], ids=["shared", "own parts"])
def test_means_are_those_of_one_process(tmp_path, changes):
    made = asked_federation(tmp_path, **changes)
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    apart, one = validation(tmp_path / "apart"), validation(tmp_path / "one place")
    phases = {phase for phase, _ in apart}
    assert phases == {"base", "round_00002", "final"} and apart.keys() == one.keys()
    for key, (total, weight) in apart.items():
        assert total == pytest.approx(one[key][0], rel=1e-5, abs=1e-9) and weight == one[key][1]
    assert asked_lines(tmp_path / "apart") == asked_lines(tmp_path / "one place") != []
    assert adapters(tmp_path / "apart").keys() == adapters(tmp_path / "one place").keys() or changes
    told = [line for line in made.node("north").ledger.records() if line["kind"] == "scores"]
    assert [line["phase"] for line in told if line["client"] == "client0"] == ["base", "round_00002", "final"]
    assert set(told[0]["scores"]) == set(ALLOWED) and not any("text" in line for line in told)


def test_a_score_that_a_policy_does_not_name_is_not_told_and_stops_nothing(tmp_path):
    made = asked_federation(tmp_path)
    made.write_policy("south", metrics=["loss"])
    made.to_the_end(tmp_path / "apart")
    refused = [line for line in made.node("south").ledger.records() if line["kind"] == "refused"]
    assert len(refused) == 3 and all(
        "metrics: found 'exact_match', allowed are loss" in one["reason"] for one in refused
    )
    asked = "".join(asked_lines(tmp_path / "apart"))
    assert '"client2"' not in asked and '"client0"' in asked
    assert (tmp_path / "apart" / "adapter").is_dir()


def test_few_examples_are_not_told_about(tmp_path):
    made = asked_federation(tmp_path)
    made.write_policy("west", min_examples=4)
    made.to_the_end(tmp_path / "apart")
    reasons = [line.get("reason", "") for line in made.node("west").ledger.records()]
    assert any("min_examples: found" in reason and "held out" in reason for reason in reasons)


def test_a_run_that_was_approved_without_scores_tells_none(tmp_path):
    made = federation(tmp_path, policy={"metrics": ALLOWED})
    from fedloom.network.hands import Hands
    from fedloom.network.manifest import Manifest

    manifest = Manifest.parsed(next((made.folder / "north" / "approved").glob("*.json")).read_text())
    with pytest.raises(ConfigError, match="the approved run asks for no scores"):
        hands = Hands(made.node("north"))
        hands.work(manifest)
        hands.may_score(manifest, "client0")


def test_the_review_says_which_scores_leave(tmp_path):
    from fedloom.network.manifest import Manifest
    from fedloom.network.review import review

    made = asked_federation(tmp_path)
    manifest = Manifest.parsed(
        max((made.folder / "north" / "approved").glob("*.json"), key=lambda p: p.stat().st_mtime_ns).read_text()
    )
    page = "\n".join(review(made.node("north"), manifest))
    assert "a sum and a weight for each, 3 times: loss, exact_match" in page
    made.write_policy("north", metrics=[])
    assert "your policy's metrics lack loss, exact_match, so that none is told" in "\n".join(
        review(made.node("north"), manifest)
    )


def test_what_is_told_arrives_bit_for_bit():
    told = OwnScores(5, {"loss": Mean(0.1 + 0.2, 17.0)})
    assert scores_from(scores_to("job", told), ("loss",)) == told
    assert scores_from(scores_to("job", "no"), ("loss",)) == "no"


WRONG = {
    "a score that nobody asked for": {"examples": 3, "scores": {"rouge": {"total": "0x1p0", "weight": "0x1p0"}}},
    "no scores": {"examples": 3, "scores": {}},
    "no examples": {"examples": 0, "scores": {"loss": {"total": "0x1p0", "weight": "0x1p0"}}},
    "scores that are a list": {"examples": 3, "scores": [1]},
    "a score that is a text": {"examples": 3, "scores": {"loss": "a private text"}},
    "a total that is a text": {"examples": 3, "scores": {"loss": {"total": "a private text", "weight": "0x1p0"}}},
    "infinity": {"examples": 3, "scores": {"loss": {"total": "inf", "weight": "0x1p0"}}},
    "a weight below zero": {"examples": 3, "scores": {"loss": {"total": "0x1p0", "weight": "-0x1p0"}}},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_scores_is_refused(case):
    with pytest.raises(DataError):
        scores_from({"kind": "scores", "job": "j"} | WRONG[case], ("loss",))


def test_a_policy_decides_by_name_and_number():
    may_tell(("loss",), ("loss",), examples=5, least=5)
    with pytest.raises(ConfigError, match=r"metrics: found 'loss', allowed are none"):
        may_tell(("loss",), (), examples=5, least=5)
    with pytest.raises(ConfigError, match="min_examples: found 4"):
        may_tell(("loss",), ("loss",), examples=4, least=5)


def test_scores_are_taken_once_and_only_of_own_clients(tmp_path, monkeypatch):
    """A node that claims another's client is refused; the same answer again changes nothing."""
    made = asked_federation(tmp_path, rounds=1)
    offered, verdicts = Hub.offered, []

    def twice(self, node, header):
        verdict = offered(self, node, header)
        if header.get("kind") == "scores":
            other = next(name for name in self.enrolment.nodes if name != node)
            verdicts.append((verdict.kind, offered(self, other, header).kind, offered(self, node, header).kind))
        return verdict

    monkeypatch.setattr(Hub, "offered", twice)
    made.to_the_end(tmp_path / "apart")
    assert len(verdicts) == 8  # four clients, before and after
    for first, stranger, again in verdicts:
        assert first == "taken" and stranger in ("refused", "closed") and again in ("taken", "closed")
    assert Verdict("taken").header()["reason"] == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"privacy": {"name": "gaussian", "delta": 1e-4}, "weighting": "uniform"},
            "deployment.evaluate: found true with privacy",
        ),
        ({"evaluation": {"holdout": 0.0}}, "evaluation.holdout: found 0 with deployment.evaluate"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, changes, text):
    with pytest.raises(ConfigError, match=text):
        small_run(tmp_path, **(ASKED | changes))


def test_evaluations_are_those_that_the_run_plans():
    settings = {"rounds": 6, "evaluation": {"every": 2}}
    told = {phase: planned_round(settings, phase) for phase in ("base", "round_00002", "round_00004", "tuned", "final")}
    assert told == {"base": 0, "round_00002": 2, "round_00004": 4, "tuned": 6, "final": 6}
    assert {planned_round(settings, phase) for phase in ("round_00003", "round_00006", "round_2", "", "x")} == {None}
    assert planned_round({"rounds": 6, "evaluation": {"every": 0}}, "round_00002") is None
