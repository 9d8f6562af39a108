"""Whole private runs: what an audit finds, ledgers of killed runs, epsilon by another accountant."""

import json
import sys
import time

import numpy as np
import pytest

from fedloom import api
from fedloom.base.errors import ConfigError, MissingFileError, ModelError
from fedloom.cli import main as cli
from fedloom.runs.attacked import attacked_files
from fedloom.runs.audit import Audited, audit, check_audit, make_canaries
from fedloom.runs.audit_summary import summary
from fedloom.runs.directory import RunDirectory
from fedloom.runs.prepared import prepare
from support.accounting import fourier_pld, quadrature_rdp
from support.models import tokenizer
from support.resuming import kill_and_resume, logs, run_to_the_end
from support.small_runs import small_run, write_run_file

pytestmark = pytest.mark.slow

PRIVATE = {
    "privacy": {"name": "gaussian", "epsilon": 1.0, "delta": 1e-5},
    "weighting": "uniform",
    "rounds": 6,
    "model": {"name": "causal_lm", "lora_rank": 8},
    "local": {"lr": 0.008, "steps": 8, "batch": 12, "clip_norm": 0.0, "schedule": "constant"},
}
BARE = PRIVATE | {"privacy": {"name": "none"}, "rounds": 4}
CANARIES = 64


def private_run(folder, **changes):
    run = small_run(folder)  # writes model and data
    wanted = PRIVATE | changes
    return small_run(folder, **wanted | {"model": wanted["model"] | {"path": run.model.path}})


def audited(run, folder, **choices):
    directory = RunDirectory.create(folder, attacked_files(run, ""))
    *_, last = audit(run, directory, n_canaries=CANARIES, **{"n_releases": 0} | choices)
    assert isinstance(last, Audited)
    return last.record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def with_noise(folder):
    return audited(private_run(folder), folder / "with_noise")


@pytest.fixture(scope="module")
def without_noise(folder):
    return audited(private_run(folder), folder / "without_noise", noise="removed")


@pytest.fixture(scope="module")
def unprotected(folder):
    return audited(private_run(folder, **BARE), folder / "unprotected")


# ----------------------------------------------------------------------------------------------------- what is found


def test_bound_of_a_private_run_is_at_most_the_stated_epsilon(with_noise):
    assert all(
        bound["epsilon"] <= with_noise["stated"]["epsilon"]["pld"] <= 1 for bound in with_noise["bounds"].values()
    )


def test_without_the_noise_the_bound_exceeds_the_stated_epsilon(without_noise):
    assert without_noise["bounds"]["loss difference"]["epsilon"] > 1.2 * without_noise["stated"]["epsilon"]["pld"]


def test_verdict_tells_the_two_apart(with_noise, without_noise):
    assert (with_noise["refuted"], without_noise["refuted"]) == (False, True)


def test_removing_the_noise_leaves_the_stated_guarantee_as_it_is(with_noise, without_noise):
    assert with_noise["stated"] == without_noise["stated"]


def test_run_without_privacy_states_nothing_and_leaks(unprotected):
    assert unprotected["stated"] is None and unprotected["bounds"]["loss difference"]["epsilon"] > 1


def test_noise_hides_canaries_that_are_memorised_without_it(with_noise, without_noise):
    assert without_noise["exposure_bits"]["mean"] > 3 > 2.5 > with_noise["exposure_bits"]["mean"]


def test_membership_is_found_without_noise_and_not_with_it(with_noise, without_noise):
    aucs = [found["membership"][0]["auc"] for found in (with_noise, without_noise)]
    assert aucs[0]["low"] < 0.5 < 0.9 < aucs[1]["low"]


def test_both_attacks_on_canaries_and_examples_are_reported(with_noise):
    rows = [(row["of"], row["by"]) for row in with_noise["membership"]]
    assert rows == [("canaries", "loss"), ("canaries", "reference"), ("examples", "loss"), ("examples", "reference")]


def test_training_examples_are_told_from_ones_that_were_kept_out(with_noise):
    row = with_noise["membership"][2]
    assert (row["n_members"], row["n_others"]) == (21, 5)  # of 5, 6, 7 and 8 records a fifth of each client's, rounded


def test_audit_file_holds_what_was_found(folder, with_noise):
    assert json.loads((folder / "with_noise" / "audit.json").read_text()) == with_noise


def test_included_canaries_count_among_the_clients_examples(folder, with_noise):
    ledger = [json.loads(line) for line in (folder / "with_noise" / "ledger.jsonl").read_text().splitlines()]
    planted = [json.loads(line) for line in (folder / "with_noise" / "canaries.jsonl").read_text().splitlines()]
    own = {"client0": 5 - 1, "client1": 6 - 1, "client2": 7 - 1, "client3": 8 - 2}
    joined = {client: sum(c["included"] for c in planted if c["client"] == client) for client in own}
    rates = {line["client"]: line["sampling_rate"] for line in ledger}
    assert rates == {client: min(1.0, 12 / (n + joined[client])) for client, n in own.items()}


def test_directory_of_an_audit_is_not_resumed(folder, with_noise):
    with pytest.raises(MissingFileError, match=r"no run directory \(it has no run\.toml\)"):
        api.resume(folder / "with_noise")


def test_summary_of_a_run_without_noise_says_so_loudly(without_noise):
    assert summary(without_noise)[0].startswith("NOT PRIVATE: the noise was multiplied by 0")


def test_summary_of_a_private_run_prints_its_bound(with_noise):
    text = "\n".join(summary(with_noise))
    assert "found       epsilon >= 0." in text and "the stated epsilon is not refuted" in text


def test_text_of_two_clients_is_neither_told_nor_told_from(tmp_path):
    run = private_run(tmp_path, **BARE | {"rounds": 1})
    shared = [{"instruction": "w9 w9", "output": "w9", "owner": f"client{c}", "kind": "k"} for c in (0, 1)]
    with (tmp_path / "data.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in shared)
    row = audited(run, tmp_path / "run")["membership"][2]
    assert (row["n_members"], row["n_others"]) == (21, 5)  # as without the two


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """What `fedloom audit` prints of a run without privacy."""

    def printed(*words):
        file = write_run_file(tmp_path, rounds=1)
        given = ["fedloom", "audit", str(file), "--canaries", "16", "--out", str(tmp_path / "out"), *words]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        return capsys.readouterr().out

    return printed


def test_command_prints_json(command):
    assert json.loads(command("--json"))["noise"] == "none"


def test_command_prints_what_is_stated_and_found(command):
    text = command()
    assert "stated      epsilon infinity: nothing is protected" in text and "found       epsilon >= 0.000" in text


# ----------------------------------------------------------------------------------------------------------- canaries


def test_canaries_are_spread_evenly():
    canaries = make_canaries(tokenizer(), ("a", "b", "c"), 30, 0)
    assert [canary.client for canary in canaries].count("a") == 10


def test_canaries_repeat_with_their_seed_and_differ_by_it():
    made = [make_canaries(tokenizer(), ("a",), 20, seed) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_half_of_the_canaries_are_included():
    share = np.mean([canary.included for canary in make_canaries(tokenizer(), ("a",), 10_000, 0)])
    assert 0.48 < share < 0.52  # four standard deviations


def test_canaries_are_made_of_words_without_special_tokens():
    words = {word for canary in make_canaries(tokenizer(), ("a",), 200, 0) for word in canary.example.reference.split()}
    assert words == {f"w{index}" for index in range(3, 63)}


def test_tokenizer_without_words_is_refused(monkeypatch):
    wordless = tokenizer()
    monkeypatch.setattr(wordless, "decode", lambda tokens: "-")
    with pytest.raises(ModelError, match="0 tokens of the tokenizer are words, allowed is 2 or more for canaries"):
        make_canaries(wordless, ("a",), 20, 0)


# ----------------------------------------------------------------------------------------------------------- releases

UNITS = ("example", "client", "client_local")
units = pytest.mark.parametrize("unit", UNITS)


@pytest.fixture(scope="module")
def releases(folder):
    """What was found in the releases of a whole run of each unit, with its noise and without."""
    made = {}
    for unit in UNITS:
        privacy = PRIVATE["privacy"] | {"unit": unit, "delta": 1e-3}
        run = private_run(
            folder, privacy=privacy, rounds=2, local={"lr": 0.01, "steps": 2, "batch": 12, "clip_norm": 0.0}
        )
        for noise in ("kept", "removed"):
            made[unit, noise] = audited(
                run, folder / f"{unit}_{noise}", noise=noise, n_releases=120 if unit == "example" else 80
            )
    return made


@units
def test_releases_of_a_whole_run_do_not_refute_it(releases, unit):
    found = releases[unit, "kept"]
    assert not found["releases"]["refuted"] and found["releases"]["stated"] == pytest.approx(1.0, rel=2e-3)


@units
def test_releases_refute_a_run_without_its_noise(releases, unit):
    found = releases[unit, "removed"]
    assert found["refuted"] and found["releases"]["bounds"]["many trials"]["epsilon"] > 1.5


@units
def test_the_power_of_an_audit_is_told(releases, unit):
    found = releases[unit, "kept"]
    assert 0 < found["releases"]["power"]["noise"] < 1 < found["releases"]["power"]["epsilon"]
    assert any("would likely have refuted a true epsilon of" in line for line in summary(found))


def test_clients_are_audited_in_as_many_trainings_as_trials_need(releases):
    # Four clients: eight canaries a training, of which about half join.
    assert [releases[unit, "kept"]["releases"]["trainings"] for unit in UNITS] == [1, 10, 10]


def test_file_of_an_audit_of_clients_holds_what_was_found(folder, releases):
    assert json.loads((folder / "client_kept" / "audit.json").read_text()) == releases["client", "kept"]


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "choices", "message"),
    [
        (
            {"protocol": "local_only", "privacy": {"name": "none"}},
            {},
            r"protocol is 'local_only', allowed is 'federated'",
        ),
        ({"share": "lora_B"}, {}, r"share is 'lora_B', one shared model is read"),
        ({}, {"n_canaries": 15}, r"found 15 canaries, allowed are 16 or more; raise --canaries"),
        ({"privacy": {"name": "none"}}, {"noise": "removed"}, r"no noise that --no-noise could remove"),
    ],
)
def test_what_cannot_be_audited_is_refused(folder, changes, choices, message):
    with pytest.raises(ConfigError, match=message):
        check_audit(private_run(folder, **changes), **{"n_canaries": CANARIES, "noise": "kept"} | choices)


def test_canaries_that_do_not_fit_are_refused(folder, tmp_path):
    # As long as a canary's prompt: the clients' own questions are a word shorter at least.
    ready = prepare(private_run(folder, **BARE))
    canary = make_canaries(tokenizer(), ("a",), 1, 0)[0]
    room = int(ready.run.task.encode(canary.example, ready.model).supervised_T.int().argmax())
    run = private_run(folder, task={"name": "sft", "max_length": room, "template": {"name": "vicuna"}})
    with pytest.raises(ConfigError, match=r"task\.max_length: 64 of 64 canaries of 12 words do not fit; raise it"):
        audited(run, tmp_path / "run")


def test_dropout_is_refused_as_in_the_run_itself(folder, tmp_path):
    model = {"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 2, "lora_dropout": 0.1}
    with pytest.raises(ConfigError, match=r"found a dropout of 0\.1 with privacy of examples; allowed is 0"):
        audited(private_run(folder, model=model), tmp_path / "run")


# ----------------------------------------------------------------------------------------------------- ledgers of runs


@pytest.fixture(scope="module")
def unbroken(folder):
    run = private_run(folder, rounds=8, local={"steps": 2, "batch": 3})
    start_s = time.monotonic()
    run_to_the_end(run, folder / "unbroken")
    return run, folder / "unbroken", time.monotonic() - start_s


def lines_of(folder):
    """The account of each client at the end."""
    return list({line["client"]: line for line in logs(folder)["ledger.jsonl"] if "epsilon" in line}.values())


def test_killed_and_resumed_a_private_run_has_the_ledger_of_an_unbroken_one(folder, unbroken):
    run, out, took_s = unbroken
    kill_and_resume(run, folder / "killed", kills=4, longest_s=0.7 * took_s, seed=0)
    assert logs(folder / "killed")["ledger.jsonl"] == logs(out)["ledger.jsonl"]
    assert (folder / "killed/privacy.json").read_bytes() == (out / "privacy.json").read_bytes()


def test_uses_of_a_run_are_all_its_steps(unbroken):
    _, out, _ = unbroken
    assert [line["uses"] for line in lines_of(out)] == [8 * 2] * 4


@pytest.mark.parametrize(("accountant", "oracle"), [("pld", fourier_pld), ("rdp", quadrature_rdp)])
def test_epsilon_of_a_run_is_that_of_an_independent_accountant(unbroken, accountant, oracle):
    run, out, _ = unbroken
    trained = prepare(run).division.train
    for line in lines_of(out):
        n = len(trained[line["client"]])
        expected = oracle(3 / n, line["noise_multiplier"], 16, 1e-5)
        assert line["epsilon"][accountant] == pytest.approx(expected, rel=0.02)


def test_card_of_a_run_states_the_largest_epsilon_of_all_clients(unbroken):
    _, out, _ = unbroken
    card = json.loads((out / "privacy.json").read_text())
    assert card["epsilon"]["pld"] == max(line["epsilon"]["pld"] for line in lines_of(out))
