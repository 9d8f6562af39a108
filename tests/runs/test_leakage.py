"""What a finished run gives away: planted secrets found where nothing protects, and not where something does."""

import gc
import json
import weakref
from statistics import NormalDist

import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import chat
from fedloom.contracts.stages import Made, Preparation, Refined, Refinement
from fedloom.evaluation.held_out import held_out
from fedloom.runs.attacked import attacked_files, trained
from fedloom.runs.directory import RunDirectory
from fedloom.runs.leakage.attacks import chance_exposure, first_place, lira_scores, log_odds, min_k_scores
from fedloom.runs.leakage.found import Found, of_seeds
from fedloom.runs.leakage.report import Asked, leakage
from fedloom.runs.leakage.secrets import KINDS, make_secrets
from fedloom.runs.leakage.shadows import _half
from fedloom.runs.leakage.summary import summary
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from fedloom.tasks.token_losses import token_losses
from support.command import fedloom
from support.models import tokenizer
from support.small_runs import small_run, small_table, write_run_file

pytestmark = pytest.mark.slow

TABLE = {
    "rounds": 10,
    "model": {"name": "causal_lm", "lora_rank": 8},
    "data": {"name": "world", "n_clients": 2, "records": 60},
    "local": {"lr": 0.03, "steps": 8, "batch": 16},
    "evaluation": {"metrics": [], "holdout": 0.0},
}
PRIVATE = {
    "rounds": 5,
    "privacy": {"name": "gaussian", "epsilon": 1.0, "delta": 1e-4},
    "weighting": "uniform",
    "local": TABLE["local"] | {"clip_norm": 0.0, "tokens_per_example": 3},
}
BRIEF = {
    "rounds": 1,
    "data": {"name": "world", "n_clients": 2, "records": 20},
    "local": {"lr": 0.03, "steps": 1, "batch": 4},
}
"""Of runs of which is asked what is told, not what is found."""
REPEATS = (0, 1, 16)


@plugin("echo")
class Echo(Preparation):
    """Pairs that are their documents, word for word."""

    def __call__(self, examples, owner):
        pairs = [chat("what does it say?", one.text) for one in examples]
        lines = [
            {"document": at, "start": 0, "stop": len(one.text), "instruction": "", "response": one.text, "reason": ""}
            for at, one in enumerate(examples)
        ]
        (owner.folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Made(pairs)


@plugin("forgetful")
class Forgetful(Refinement):
    """Takes back all that was trained."""

    def __call__(self, trained):
        return Refined({name: 0 * tensor for name, tensor in trained.params.items()})


@plugin("talkative")
class Talkative(Refinement):
    """Sends seven bytes to somebody else."""

    def __call__(self, trained):
        return Refined(trained.params, sent={"prompts of a teacher": 7})


def reported(folder, asked=None, **changes):
    run = read_run(TABLE | changes)
    directory = RunDirectory.create(folder, attacked_files(run, ""))
    *_, last = leakage(run, directory, asked or Asked(canaries=5, repeats=REPEATS))
    return last.record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("leakage")


@pytest.fixture(scope="module")
def bare(folder):
    """A report on a run that nothing protects, trained long enough to know its examples by heart."""
    return reported(folder / "bare")


@pytest.fixture(scope="module")
def private(folder):
    return reported(folder / "private", **PRIVATE)


def of(rows, **wanted):
    (row,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return row


def bits(record, repeats):
    return of(record["exposure"]["by_repeats"], repeats=repeats)["bits"]


def holds(interval, value):
    return interval["low"] <= value <= interval["high"]


# ------------------------------------------------------------------------------------------------- nothing protects it


def test_canaries_that_were_planted_often_are_exposed(bare):
    assert bits(bare, 16)["low"] > 3 > 2 * bare["exposure"]["chance_bits"]


@pytest.fixture(scope="module")
def five_seeds(folder):
    """Exposure over five seeds of a smaller model, by how often its canaries were planted."""
    table = small_table(folder, rounds=6, local={"lr": 0.03, "steps": 6, "batch": 16})
    table |= {"evaluation": {"metrics": [], "holdout": 0.0}}
    table["model"] |= {"lora_rank": 8}
    directory = RunDirectory.create(folder / "five", attacked_files(read_run(table), ""))
    *_, last = leakage(read_run(table), directory, Asked(canaries=4, repeats=(0, 1, 4, 16), seeds=5))
    assert len(last.record["seeds"]) == 5
    return last.record


def test_mean_exposure_of_five_seeds_does_not_fall_with_repetition(five_seeds):
    values = [bits(five_seeds, times)["value"] for times in (0, 1, 4, 16)]
    assert values == sorted(values) and values[3] > 3 * values[0]


def test_canaries_that_were_not_planted_are_exposed_by_chance(five_seeds):
    assert holds(bits(five_seeds, 0), five_seeds["exposure"]["chance_bits"])


def test_canaries_stand_in_as_many_training_examples_as_they_were_planted(bare):
    assert [row["in_examples"]["value"] for row in bare["exposure"]["by_repeats"]] == list(REPEATS)


def test_canaries_are_said_word_for_word_if_they_were_planted_often(bare):
    shares = [of(bare["verbatim"], of=f"canaries planted {times} times")["share"]["value"] for times in REPEATS]
    assert shares[0] == 0 < shares[2]


def test_training_answers_are_said_more_than_those_that_were_kept_out(bare):
    trained, kept = (of(bare["verbatim"], of=name)["share"] for name in ("training examples", "examples kept out"))
    assert trained["low"] > kept["value"]


@pytest.mark.parametrize("kind", KINDS)
def test_planted_entities_are_reconstructed(bare, kind):
    row = of(bare["reconstruction"], kind=kind, planted=True)
    assert row["final"]["low"] > row["chance"] and row["final"]["value"] > row["base"]["value"]


@pytest.mark.parametrize("kind", KINDS)
def test_entities_that_were_not_planted_are_not(bare, kind):
    row = of(bare["reconstruction"], kind=kind, planted=False)
    assert holds(row["final"], row["chance"])


@pytest.mark.parametrize("by", ["loss", "min-k"])
def test_members_are_told(bare, by):
    assert of(bare["membership"], by=by)["auc"]["low"] > 0.5


def test_what_left_the_clients_is_listed_with_its_bytes(bare):
    row = of(bare["ledger"], what="row (delta), weight, training loss")
    assert (row["times"], row["clients"]) == (2 * 10, 2) and row["bytes"] > 0


def test_file_of_a_report_holds_what_was_found(folder, bare):
    assert json.loads((folder / "bare" / "leakage.json").read_text()) == bare


def test_summary_says_that_nothing_protects(bare):
    lines = summary(bare)
    assert lines[0] == "NOT PRIVATE: the run has no privacy." and any(line.startswith("exposure  ") for line in lines)


def test_what_was_refined_is_what_is_attacked(tmp_path):
    record = reported(tmp_path / "run", Asked(2, (0, 4)), **BRIEF, refine=["forgetful"])
    assert all(row["final"] == row["base"] for row in record["reconstruction"])


# ----------------------------------------------------------------------------------------------------- epsilon protects


def test_privacy_hides_a_canary_that_was_planted_once(private):
    assert holds(bits(private, 1), private["exposure"]["chance_bits"])


def test_privacy_hides_who_is_a_member(private):
    assert all(holds(row["auc"], 0.5) for row in private["membership"])


def test_privacy_lets_no_canary_out_word_for_word(private):
    said = [row["share"]["value"] for row in private["verbatim"] if row["of"].startswith("canaries")]
    assert said == [0.0] * len(REPEATS)


@pytest.mark.parametrize("kind", KINDS)
def test_privacy_hides_entities(private, kind):
    row = of(private["reconstruction"], kind=kind, planted=True)
    assert holds(row["final"], row["chance"])


def test_epsilon_counts_the_planted_secrets(folder, private):
    assert private["privacy"]["epsilon"]["pld"] <= 1
    lines = [json.loads(line) for line in (folder / "private" / "ledger.jsonl").read_text().splitlines()]
    rates = {line["client"]: line["sampling_rate"] for line in lines if "sampling_rate" in line}
    n_planted, n_own = 5 * (1 + 16) + 5 * 16, private["membership"][0]["n_members"]  # canaries and sentences
    assert sum(16 / rate for rate in rates.values()) >= n_planted + n_own
    (stated,) = (line for line in summary(private) if line.startswith("stated          epsilon "))
    assert stated.endswith("it covers one record: a secret held r times is r records, which it does not cover")


def test_no_attack_finds_a_secret_held_sixteen_times_at_a_sixteenth_of_epsilon(tmp_path):
    privacy = PRIVATE["privacy"] | {"epsilon": 1 / 16}
    record = reported(tmp_path / "run", Asked(5, (16,)), **PRIVATE | {"privacy": privacy, "rounds": 2})
    assert holds(bits(record, 16), record["exposure"]["chance_bits"])


# ------------------------------------------------------------------------------------------------- prepared documents


@pytest.fixture(scope="module")
def echoed(folder):
    data = {"name": "world", "form": "note", "n_clients": 2}
    return reported(folder / "echoed", Asked(2, (0, 3)), **BRIEF | {"data": data}, prepare=["echo"])


def test_pairs_that_are_their_documents_overlap_in_full(echoed):
    pairs = echoed["pairs"]
    assert pairs["over_8_words"]["value"] == 1 and pairs["most_words"] >= pairs["mean_words"]["value"] > 8


def test_canaries_in_documents_that_reach_the_pairs_are_counted(echoed):
    assert [row["in_examples"]["value"] for row in echoed["exposure"]["by_repeats"]] == [0, 3]


def test_pairs_that_rewrite_others_let_no_canary_in(tmp_path):
    pytest.importorskip("sklearn")
    pairs = {"name": "pairs", "pool": "world", "completer": {"name": "analogical"}}
    pairs["selector"] = {"name": "per_datum", "k": 1}
    data = {"name": "world", "form": "note", "n_clients": 3}
    record = reported(tmp_path / "run", Asked(2, (0, 3)), **BRIEF | {"data": data}, prepare=[pairs])
    assert record["pairs"]["over_8_words"]["value"] == 0
    assert [row["in_examples"]["value"] for row in record["exposure"]["by_repeats"]] == [0, 0]


# -------------------------------------------------------------------------------------------------------------- scores


def test_min_k_is_that_of_sorting_by_hand():
    losses = np.random.default_rng(0).exponential(size=(4, 11))
    by_hand = [sum(sorted(-row)[:2]) / 2 for row in losses]  # a fifth of 11 tokens
    assert min_k_scores(list(losses)) == pytest.approx(by_hand)


def test_min_k_of_a_short_answer_is_its_least_likely_token():
    assert min_k_scores([np.array([0.5, 2.0, 1.0])]).tolist() == [-2.0]


def test_lira_is_that_of_the_offline_test_by_hand():
    random = np.random.default_rng(1)
    loss, shadows = random.exponential(size=7), random.exponential(size=(6, 7))
    inside = np.arange(6)[:, None] % 2 == np.arange(7) % 2

    def phi(value):
        return np.log(np.exp(-value) / (1 - np.exp(-value)))

    spread = np.std([phi(shadows[s, n]) for s in range(6) for n in range(7) if not inside[s, n]])
    by_hand = [
        NormalDist(np.mean([phi(shadows[s, n]) for s in range(6) if not inside[s, n]]), spread).cdf(phi(loss[n]))
        for n in range(7)
    ]
    assert [NormalDist().cdf(score) for score in lira_scores(loss, shadows, inside)] == pytest.approx(by_hand)


def test_lira_refuses_an_example_that_every_shadow_has_seen():
    with pytest.raises(DataError, match="give each example a shadow model without it"):
        lira_scores(np.ones(2), np.ones((2, 2)), np.array([[True, True], [True, False]]))


def test_log_odds_are_finite_where_a_model_is_sure():
    assert log_odds(np.array([0.0, 1e-9, 700.0])).tolist() == pytest.approx([27.6, 20.7, -700.0], abs=0.1)


def test_a_tie_is_no_find():
    assert not first_place(1.0, np.array([1.0, 2.0])) and first_place(0.9, np.array([1.0, 2.0]))


def test_exposure_by_chance_is_the_mean_over_all_ranks():
    assert chance_exposure(3) == pytest.approx((2 + 1 + (2 - np.log2(3)) + 0) / 4)
    assert chance_exposure(10_000) == pytest.approx(np.log2(np.e), abs=2e-3)


def test_losses_of_tokens_add_up_to_those_of_examples(tmp_path):
    ready = prepare(small_run(tmp_path))
    held, _ = held_out("train", ready.division.train["client0"], ready.run.task, ready.model)
    (told,) = ready.run.task.scores(ready.model, ready.shared, [held.items])
    found = token_losses(ready.run.task, ready.model, ready.shared, held.items)
    assert [len(one) for one in found] == [one["loss"].weight for one in told]
    assert [one.sum() for one in found] == pytest.approx([one["loss"].total for one in told], rel=1e-5)


def found_of(seed, members, others):
    scores = {"loss": (np.array(members, dtype=float), np.array(others, dtype=float))}
    return Found(seed, (1,), (0.0,), (1,), {}, (), scores, ())


def membership_of(*parts):
    (row,) = of_seeds([found_of(seed, *part) for seed, part in enumerate(parts)], 500)["membership"]
    return row


def test_membership_is_the_mean_of_the_seeds_whatever_the_scales_of_their_scores():
    row = membership_of(([1, 2], [0, 0]), ([101, 103], [100, 102]))
    assert row["auc"]["value"] == pytest.approx((1 + 0.75) / 2)
    assert row["true_positive_rate"]["value"] == pytest.approx((1 + 0.5) / 2)
    assert (row["n_members"], row["n_others"]) == (4, 4)


def test_seeds_are_drawn_for_the_interval_of_membership():
    told, untold = (range(100, 200), range(100)), (range(100), range(100))
    auc = membership_of(told, told, told, untold, untold)["auc"]
    assert auc["value"] == pytest.approx(0.8) and auc["low"] < 0.6 and auc["high"] == 1


def test_intervals_of_membership_over_seeds_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(2)
    truth = NormalDist().cdf(1 / 2**0.5)
    hits = 0
    for _ in range(100):
        parts = [(random.normal(1, 1, 40), random.normal(0, 1, 40)) for _ in range(5)]
        hits += holds(membership_of(*parts)["auc"], truth)
    assert hits >= 90


# -------------------------------------------------------------------------------------------------- secrets and shadows


def test_secrets_repeat_with_their_seed_and_differ_by_it():
    made = [make_secrets(tokenizer(), ("a", "b"), each=3, repeats=(0, 2), seed=seed) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_a_secret_is_found_in_a_text_as_whole_words():
    (secret, *_) = make_secrets(tokenizer(), ("a",), each=1, repeats=(1,), seed=0).canaries
    assert secret.stands_in(f"So: {secret.answer.upper()}!") and not secret.stands_in(f"{secret.answer}0")


def test_two_shadows_share_no_text_and_have_all_between_them():
    owners = [(client, f"{client}{n // 2}") for client in "ab" for n in range(10)]
    first, second, third = (_half(("a", "b"), owners, number, 0) for number in range(3))
    assert (first ^ second).all() and (first != third).any()
    assert not {one for one, inside in zip(owners, first, strict=True) if inside} & {
        one for one, inside in zip(owners, second, strict=True) if inside
    }


@pytest.mark.parametrize(("shadows", "times"), [(0, 1), (2, 3)])
def test_what_left_the_server_is_told_of_the_shadows_too(tmp_path, shadows, times):
    record = reported(tmp_path / "run", Asked(1, (1,), shadows=shadows), **BRIEF, refine=["talkative"])
    row = of(record["ledger"], what="server, talkative: prompts of a teacher")
    assert (row["times"], row["clients"], row["bytes"]) == (times, 0, 7 * times)
    assert f"left the server {row['what']}: {times} times, {7 * times} bytes" in summary(record)
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [line.get("shadow") for line in lines if line.get("bytes") == 7] == [None, 0, 1][:times]


def test_no_state_of_a_shadow_is_kept_beside_the_next(tmp_path, monkeypatch):
    alive = []

    def watched(ready, stage, directory):
        for state, event, told in trained(ready, stage, directory):
            alive.append(weakref.ref(state))
            yield state, event, told
            del state
            gc.collect()
            most.append(sum(one() is not None for one in alive))

    most = []
    monkeypatch.setattr("fedloom.runs.leakage.shadows.trained", watched)
    reported(tmp_path / "run", Asked(1, (1,), shadows=2), **BRIEF | {"rounds": 2})
    assert len(most) == 4 and max(most) <= 3


def test_shadows_give_one_attack_more(tmp_path):
    record = reported(tmp_path / "run", Asked(2, (0, 1), seeds=2, shadows=2), **BRIEF)
    assert [row["by"] for row in record["membership"]] == ["loss", "reference", "min-k", "lira"]
    assert record["seeds"] == [0, 1] and bits(record, 1)["n"] == 4


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats", "0,many"], "--repeats: found '0,many', allowed are whole numbers as in 0,1,4,16."),
        (["--repeats", "0"], "--repeats: found 0, allowed are different whole numbers"),
        (["--repeats", "1,1"], "--repeats: found 1,1, allowed are different whole numbers"),
        (["--canaries", "0"], "--canaries: found 0, allowed are 1 or more."),
        (["--seeds", "0"], "--seeds: found 0, allowed are 1 or more."),
        (["--shadows", "3"], "--shadows: found 3, allowed are even numbers"),
        (["protocol=local_only"], "leakage: protocol is 'local_only', allowed is 'federated'"),
        (["privacy.name=gaussian", "privacy.epsilon=0", "weighting=uniform"], "privacy.epsilon: found 0"),
        (["task.max_length=20"], "canaries of 12 words do not fit; raise it."),
        (["rounds=1", "data.path=missing.jsonl"], "missing.jsonl"),
    ],
)
def test_what_cannot_be_reported_on_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    file, out = write_run_file(tmp_path), tmp_path / "out"
    assert fedloom(monkeypatch, "leakage", file, *words, "--quiet", "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not out.exists()


def test_command_prints_json(tmp_path, monkeypatch, capsys):
    file = write_run_file(tmp_path, rounds=1)
    words = ["--canaries", "1", "--repeats", "0,2", "--json", "--out", tmp_path / "out"]
    assert fedloom(monkeypatch, "leakage", file, *words) == 0
    assert json.loads(capsys.readouterr().out)["privacy"] is None
