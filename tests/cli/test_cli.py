"""The commands as a user meets them: what they print, and how they end."""

import json

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fedloom.data.sources.file import File
from support.command import fedloom
from support.paths import ROOT
from support.small_runs import write_records, write_run_file
from support.tools import tool


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three finished runs: federated with two seeds, and local-only."""
    folder = tmp_path_factory.mktemp("cli")
    patch = pytest.MonkeyPatch()
    file = write_run_file(folder, rounds=2)
    test = write_records(folder / "test.jsonl", records=3, seed=9)
    for name, words in {
        "fed1": ["seed=1"],
        "fed2": ["seed=2"],
        "local1": ["seed=1", "protocol=local_only"],
        "local2": ["seed=2", "protocol=local_only"],
        "prox": ["rule.name=prox"],
    }.items():
        assert fedloom(patch, "run", file, f"data.test_path='{test}'", *words, "--quiet", "--out", folder / name) == 0
    patch.undo()
    return folder


def test_quiet_run_prints_nothing(tmp_path, monkeypatch, capsys):
    assert fedloom(monkeypatch, "run", write_run_file(tmp_path, rounds=1), "--quiet", "--out", tmp_path / "run") == 0
    assert capsys.readouterr().out == ""


def test_run_without_a_terminal_prints_a_line_per_round(tmp_path, monkeypatch, capsys):
    fedloom(monkeypatch, "run", write_run_file(tmp_path), "--out", tmp_path / "run")
    out = capsys.readouterr().out
    assert all(f"round {number}/3  loss" in out for number in (1, 2, 3)) and "base: " in out and "final: " in out


def test_show_prints_json_for_programs(runs, monkeypatch, capsys):
    fedloom(monkeypatch, "show", runs / "fed1", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["label"] == "FedAvg" and shown["complete"] and shown["rows"][0]["score"] == "loss"


def test_show_has_the_worst_decile_of_the_clients(runs, monkeypatch, capsys):
    fedloom(monkeypatch, "show", runs / "fed1")
    assert "worst decile" in capsys.readouterr().out


def test_compare_pairs_a_run_with_local_training(runs, monkeypatch, capsys):
    fedloom(monkeypatch, "compare", runs / "fed1", runs / "local1")
    out = capsys.readouterr().out
    assert "Paired differences" in out and "FedAvg - local_only" in out


def test_compare_takes_several_seeds_of_each_kind(runs, monkeypatch, capsys):
    assert fedloom(monkeypatch, "compare", *(runs / name for name in ("fed1", "fed2", "local1", "local2"))) == 0
    assert "FedAvg (2 seeds)" in capsys.readouterr().out


def test_compare_puts_methods_side_by_side(runs, monkeypatch, capsys):
    fedloom(monkeypatch, "compare", runs / "fed1", runs / "prox")
    out = capsys.readouterr().out
    assert "FedAvg (seed 1)" in out and "FedProx (seed 1)" in out


def test_two_runs_of_one_kind_and_seed_are_refused(runs, monkeypatch, capsys):
    assert fedloom(monkeypatch, "compare", runs / "fed1", runs / "fed1") == 2
    assert "another 'FedAvg' run of seed 1" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft 0.21 on transformers 5
def test_adapter_of_a_run_loads_in_peft(runs):
    base = AutoModelForCausalLM.from_pretrained(runs / "model")
    loaded = PeftModel.from_pretrained(base, runs / "fed1" / "adapter")
    assert any("lora_A" in name for name, _ in loaded.named_parameters())


def test_local_only_leaves_an_adapter_per_client(runs):
    assert len(list((runs / "local1" / "adapters").iterdir())) == 4


def test_export_writes_a_merged_model(runs, tmp_path, monkeypatch):
    assert fedloom(monkeypatch, "export", runs / "fed1", "--out", tmp_path / "model", "--merged") == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.model_type == "llama"


def test_doctor_measures_a_step_of_a_run(runs, monkeypatch, capsys):
    fedloom(monkeypatch, "doctor", runs / "run.toml")
    out = capsys.readouterr().out
    assert "one step: " in out and "training examples of 4 clients" in out


@pytest.mark.slow
def test_a_way_of_training_that_is_not_the_wanted_one_is_told_first(tmp_path, monkeypatch, capsys):
    file = write_run_file(tmp_path, rounds=1)
    tool("model_table").make("bloom", tmp_path / "model")
    note = "BloomForCausalLM: attention 'packed' is not exact"
    fedloom(monkeypatch, "run", file, "sinks=[{name='tensorboard'}]", "--out", tmp_path / "run")
    assert any(line.startswith(f"note: {note}") for line in capsys.readouterr().out.splitlines()[:3])
    fedloom(monkeypatch, "doctor", file)
    assert note in capsys.readouterr().out


def test_resuming_a_finished_run_shows_its_table(runs, monkeypatch, capsys):
    assert fedloom(monkeypatch, "resume", runs / "fed1") == 0
    assert "FedAvg, seed 1" in capsys.readouterr().out


def test_world_sample_prints_json_lines(monkeypatch, capsys):
    fedloom(monkeypatch, "world", "sample", "private", "--count", "3")
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 3 and all(record["part"] == "private" for record in records)


@pytest.mark.parametrize("what", ["client", "passages", "preferences", "safety"])
def test_what_world_sample_prints_is_read_as_data(tmp_path, monkeypatch, capsys, what):
    fedloom(monkeypatch, "world", "sample", what, "--count", "3")
    (tmp_path / "data.jsonl").write_text(capsys.readouterr().out)
    assert len(File(path=str(tmp_path / "data.jsonl")).load()["train"]) == 3


def test_unknown_command_exits_with_2(monkeypatch, capsys):
    assert fedloom(monkeypatch, "fly") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [(["bench", "x.toml", "--jobs", "0"], "'--jobs'"), (["run"], "'file'"), (["show", "--frobnicate"], "--frobnicate")],
)
def test_wrong_words_are_told_by_their_option_in_one_line(monkeypatch, capsys, words, said):
    assert fedloom(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert said in told and told.endswith("see `fedloom --help`.\n") and told.count("\n") == 1


def test_the_version_is_told(monkeypatch, capsys):
    import fedloom as package

    assert fedloom(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"fedloom {package.__version__}\n"


def test_the_version_is_that_of_the_distribution():
    import tomllib

    import fedloom as package

    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert stated == package.__version__
