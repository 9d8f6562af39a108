"""Killed at any moment and resumed, a run ends with the same bytes as an unbroken one."""

import json
import os
import random
import time

import pytest
from safetensors.torch import load_file

from fedloom import api
from fedloom.base.errors import FedloomError, RunError
from fedloom.runs.directory import LOGS
from support.resuming import adapters, kill_and_resume, logs, run_to_the_end
from support.small_runs import small_run, write_run_file

KILLS = 16
# Adaptive clipping norms lie in the checkpoint, too: at each client here, at the server there.
FIXED = {"name": "gaussian", "epsilon": 0.0, "noise_multiplier": 1.0, "delta": 0.1}
EXAMPLES = FIXED | {"unit": "example", "clip_quantile": 0.5, "clip_count_noise": 10.0}
CLIENTS = FIXED | {"unit": "client", "clip_quantile": 0.5, "clip_count_noise": 5.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "kills"),
    [
        ({"rule": {"name": "scaffold"}, "server_opt": {"name": "adam"}, "rounds": 8}, KILLS // 2),
        ({"protocol": "local_only", "rounds": 2, "checkpoint_every": 2}, KILLS // 4),
        ({"share": "lora_A", "local": {"steps": 1, "batch": 2, "optimiser_state": "kept"}}, KILLS // 4),
        ({"privacy": EXAMPLES, "weighting": "uniform", "clients_per_round": 3, "rounds": 6}, KILLS // 4),
        ({"privacy": CLIENTS, "weighting": "uniform", "clients_per_round": 2, "rounds": 6}, KILLS // 4),
        ({"codec": {"name": "top_k", "share": 0.1}, "rounds": 5}, KILLS // 4),
    ],
    ids=["scaffold_adam", "local_only", "private_kept", "protected_examples", "protected_clients", "error_feedback"],
)
def test_killed_at_random_moments_a_run_ends_with_the_same_bytes(tmp_path, changes, kills):
    run = small_run(tmp_path, **changes)
    start_s = time.monotonic()
    run_to_the_end(run, tmp_path / "unbroken")
    took_s = time.monotonic() - start_s
    kill_and_resume(run, tmp_path / "killed", kills=kills, longest_s=0.7 * took_s, seed=len(changes))
    assert adapters(tmp_path / "killed") == adapters(tmp_path / "unbroken") != {}
    assert logs(tmp_path / "killed") == logs(tmp_path / "unbroken")


def harmed(folder, draw):
    """Lose the end of a log, as a disk does that had not written it, or the last checkpoint's rename, or both."""
    kind = draw.choice(["log", "rename", "both"])
    if kind != "rename":
        file = folder / draw.choice(LOGS)
        os.truncate(file, draw.randrange(file.stat().st_size + 1))
    if kind != "log" and (saved := sorted((folder / "checkpoints").glob("round_*"))):
        saved[-1].rename(saved[-1].with_name(f".{saved[-1].name}.new"))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"privacy": EXAMPLES, "weighting": "uniform"}], ids=["plain", "private"])
def test_what_a_disk_lost_is_made_again_or_refused_in_one_line(tmp_path, changes):
    """Sixty stops at random moments, each with lines or a rename lost: the same bytes or one line, never silence."""
    run, draw = small_run(tmp_path, rounds=4, checkpoint_every=1, **changes), random.Random(len(changes))
    run_to_the_end(run, tmp_path / "unbroken")
    refused = 0
    for number in range(30):
        folder = tmp_path / str(number)
        events = api.start(run, folder)
        for _ in range(draw.randrange(1, 7)):
            next(events)
        events.close()
        harmed(folder, draw)
        try:
            list(api.resume(folder)[1])
        except RunError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert adapters(folder) == adapters(tmp_path / "unbroken") != {}
        assert logs(folder) == logs(tmp_path / "unbroken")
    assert 0 < refused < 20  # which lines are lost goes by how many a round writes


def ledger_rows(folder):
    return [line for line in logs(folder)["ledger.jsonl"] if line["what"].startswith("row")]


def test_uses_on_the_ledger_of_a_resumed_run_rise_without_a_gap(tmp_path):
    run = small_run(tmp_path, privacy=EXAMPLES, weighting="uniform", rounds=4)
    events = api.start(run, tmp_path / "run")
    for _ in range(3):
        next(events)
    events.close()
    for _ in api.resume(tmp_path / "run")[1]:
        pass
    uses = [row["uses"] for row in ledger_rows(tmp_path / "run") if row["client"] == "client0"]
    assert uses == [run.local.steps * (round + 1) for round in range(4)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run = small_run(folder)
    run_to_the_end(run, folder / "run")
    return run, folder


def test_a_finished_run_resumes_to_nothing(finished):
    _, folder = finished
    assert list(api.resume(folder / "run")[1]) == []


def test_changed_settings_are_refused_on_resume_naming_the_keys(finished):
    _, folder = finished
    other = small_run(folder, seed=7, rounds=9)
    with pytest.raises(RunError, match="differs from its directory in rounds, seed; undo that or start a new run"):
        api.resume(folder / "run", expected=other)


def interrupted(folder, **changes):
    run = small_run(folder, **changes)
    events = api.start(run, folder / "run")
    for _ in range(3):
        next(events)
    events.close()
    return folder / "run"


def test_settings_edited_in_the_directory_are_refused_on_resume(tmp_path):
    out = interrupted(tmp_path)
    text = (out / "run.toml").read_text()
    (out / "run.toml").write_text(text.replace('name = "plain"', 'name = "scaffold"'))
    with pytest.raises(RunError, match="changed since the checkpoint; undo that or start a new run"):
        list(api.resume(out)[1])


def test_data_changed_since_the_run_began_are_refused_on_resume(tmp_path):
    out = interrupted(tmp_path)
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write(json.dumps({"instruction": "w9", "output": "w9", "owner": "client0", "kind": "k0"}) + "\n")
    with pytest.raises(RunError, match="the data have changed since the run began"):
        list(api.resume(out)[1])


def test_clients_with_odd_names_keep_their_adapters_apart(tmp_path):
    owners = ["..", ".", "north/a", "x" * 300, "\u533b\u9662"]
    lines = [
        {"instruction": f"w{i + 3} w{j + 3}", "output": "w5", "owner": o}
        for i, o in enumerate(owners)
        for j in (1, 2, 3)
    ]
    run = small_run(tmp_path, protocol="local_only", rounds=1)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({**line, "kind": "k"}) + "\n" for line in lines))
    run_to_the_end(run, tmp_path / "run")
    assert len(adapters(tmp_path / "run")) == len(owners) and (tmp_path / "run" / "report.md").exists()


def test_centralised_training_shares_everything(tmp_path):
    run_to_the_end(small_run(tmp_path, protocol="centralised", share="lora_A"), tmp_path / "run")
    tensors = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert all(float(tensor.abs().max()) > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_results_of_validation_hold_no_text(tmp_path):
    run_to_the_end(small_run(tmp_path), tmp_path / "run")
    records = logs(tmp_path / "run")["results.jsonl"]
    assert records and not any(
        r["prompt"] or r["reference"] or r["prediction"] for r in records if r["set"] == "validation"
    )


def test_a_run_whose_file_is_damaged_is_refused(finished, tmp_path):
    (tmp_path / "run.toml").write_text("rounds = ")
    with pytest.raises(FedloomError, match=r"run\.toml: not valid TOML"):
        api.resume(tmp_path)


def test_ledger_lists_each_client_of_each_round_with_true_bytes(finished):
    run, folder = finished
    rows = [r for r in logs(folder / "run")["ledger.jsonl"] if r["what"].startswith("row")]
    assert len(rows) == run.rounds * 4 and len({row["bytes"] for row in rows}) == 1


def test_run_directory_has_what_the_documents_list(finished):
    _, folder = finished
    wanted = {"run.toml", "source.toml", "environment.json", "partition.json", "report.md", "adapter", "samples"}
    assert wanted | {"checkpoints", "metrics.jsonl", "ledger.jsonl", "results.jsonl"} <= {
        p.name for p in (folder / "run").iterdir()
    }


def test_run_file_and_overrides_are_kept_as_given(tmp_path):
    file = write_run_file(tmp_path, rounds=1)
    run = api.load_run(file, ["seed=5"])
    assert run.seed == 5 and run.rounds == 1


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("damage", ["torn", "lost", "turned"])
def test_a_damaged_log_of_a_complete_run_is_made_good(tmp_path, log, damage):
    run = small_run(tmp_path, rounds=2)
    run_to_the_end(run, tmp_path / "run")
    before, file = logs(tmp_path / "run"), tmp_path / "run" / log
    data = file.read_bytes()
    file.write_bytes({"torn": data + b'{"round": ', "lost": data[:-5], "turned": data[:-9] + b"7" + data[-8:]}[damage])
    list(api.resume(tmp_path / "run")[1])
    assert logs(tmp_path / "run") == before
    assert (tmp_path / "run" / "report.md").is_file()
