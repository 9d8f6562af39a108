"""Wrong input: one clear line, exit code 2, no traceback, nothing written before is lost."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedloom.cli import main as cli
from support.small_runs import small_table, write_records, write_run_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    small_table(folder)
    return folder


def fedloom(*words, monkeypatch, capsys):
    """Run the command line in this process; returns (exit code, standard error)."""
    monkeypatch.setattr(sys, "argv", ["fedloom", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err.strip()


@pytest.fixture
def refused(monkeypatch, capsys):
    """Check that a command is refused with one line that contains a text, and return the line."""

    def check(text, *words):
        code, error = fedloom(*words, monkeypatch=monkeypatch, capsys=capsys)
        assert code == 2 and "Traceback" not in error and len(error.splitlines()) == 1
        assert text in error
        return error

    return check


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("local.lrr=1", "local.lrr: unknown key. Did you mean 'lr'?"),
        ("rule.name=fedadagrad", "rule.name: no Rule called 'fedadagrad'. "),
        ("server_opt.name=adagard", "server_opt.name: no ServerOpt called 'adagard'. Did you mean 'adagrad'?"),
        ("data.name=medqaud", "data.name: no Source called 'medqaud'."),
        ("local.steps=53k", "local.steps: found '53k', allowed is a whole number."),
        ("local.steps=2.5", "local.steps: found 2.5, allowed is a whole number."),
        ("local.lr=true", "local.lr: found True, allowed is a number."),
        ("local.lr=-1", "local.lr: found -1.0, allowed is a number > 0."),
        ("local.steps=0", "local.steps: found 0, allowed is a number >= 1."),
        ("local.lr_final=9", "local.lr_final: found 9, allowed is at most lr = 0.02."),
        ("protocol=central", "protocol.name: no Arrangement called 'central'. Did you mean 'centralised'?"),
        ("rule.mu=1", "rule.mu: 'plain' has no such setting"),
        ("evaluation.metrics=['bleurt']", "evaluation.metrics[0].name: no Metric called 'bleurt'."),
        ("rounds", "override 'rounds': allowed is key=value"),
        ("seed.x=1", "override 'seed.x=1': 'seed' is 1, no table."),
        ("plugins=['no_such_module']", "plugins: 'no_such_module' cannot be imported"),
        ("task.template.name=alpacca", "task.template.name: no Template called 'alpacca'. Did you mean 'alpaca'?"),
        ("device=tpu", "device: found 'tpu'."),
        ("share='('", "share: '(' is no regular expression"),
        ("plugins=5", "plugins: found 5, allowed is a list of module names"),
        ("evaluation.holdout=1", "evaluation.holdout: found 1.0, allowed is a number >= 0 and <= 0.9."),
        ("seed=" + "9" * 400, "seed: found 999"),
        ("seed=" + "9" * 5000, "seed"),
    ],
)
def test_wrong_setting_is_refused_before_anything_is_loaded(folder, tmp_path, refused, monkeypatch, override, text):
    monkeypatch.setattr("fedloom.runs.prepared.divide", None)  # loading data would fail differently
    refused(text, "run", write_run_file(folder), override, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def run_with(folder, tmp_path, refused, text, **changes):
    return refused(text, "run", write_run_file(folder, **changes), "--quiet", "--out", tmp_path / "run")


def data_of(path, **changes):
    table = {"name": "file", "path": str(path), "form": "alpaca", "tags": {"client": "owner"}}
    return {"data": table | changes, "evaluation": {"holdout": 0.0, "metrics": []}}


def write_lines(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


GOOD = {"instruction": "w3", "output": "w4", "owner": "anna"}


def test_missing_run_file(tmp_path, refused):
    refused("no such TOML file; give the path of one", "run", tmp_path / "nothing.toml")


def test_malformed_run_file(tmp_path, refused):
    (tmp_path / "bad.toml").write_text("rounds = = 3")
    refused("not valid TOML", "run", tmp_path / "bad.toml")


def test_missing_data_file(folder, tmp_path, refused):
    run_with(folder, tmp_path, refused, "gone.jsonl", **data_of(tmp_path / "gone.jsonl"))


def test_malformed_line_is_named_by_file_and_number(folder, tmp_path, refused):
    path = write_lines(tmp_path, GOOD, '{"instruction": ', GOOD)
    error = run_with(folder, tmp_path, refused, "data.jsonl", **data_of(path))
    assert "line 2" in error or ":2" in error


def test_missing_column_lists_those_present(folder, tmp_path, refused):
    path = write_lines(tmp_path, GOOD, {"instruction": "w3", "owner": "anna"})
    error = run_with(folder, tmp_path, refused, "no column 'output'; present: instruction, owner", **data_of(path))
    assert "2" in error


def test_not_a_number_in_the_data(folder, tmp_path, refused):
    path = write_lines(tmp_path, GOOD, '{"instruction": "w3", "output": NaN, "owner": "anna"}')
    run_with(folder, tmp_path, refused, "data.jsonl", **data_of(path))


def test_data_without_records(folder, tmp_path, refused):
    run_with(folder, tmp_path, refused, "data.jsonl", **data_of(write_lines(tmp_path)))


def test_client_without_supervised_tokens(folder, tmp_path, refused):
    long = {"instruction": " ".join(["w3"] * 90), "output": "w4", "owner": "berta"}
    path = write_lines(tmp_path, GOOD, long)
    text = "client 'berta': none of its 1 examples has a supervised token; raise max_length."
    run_with(folder, tmp_path, refused, text, **data_of(path))


def test_record_without_its_client(folder, tmp_path, refused):
    path = write_lines(tmp_path, GOOD, {"instruction": "w3", "output": "w4"})
    run_with(folder, tmp_path, refused, "owner", **data_of(path))


def test_more_clients_than_examples(folder, tmp_path, refused):
    changes = data_of(write_lines(tmp_path, GOOD, GOOD)) | {"partition": {"name": "iid"}, "clients": 5}
    run_with(folder, tmp_path, refused, "2 examples for 5 clients", **changes)


def test_more_sampled_clients_than_clients(folder, tmp_path, refused):
    run_with(folder, tmp_path, refused, "clients_per_round: found 9, the data have 4 clients", clients_per_round=9)


def test_more_sampled_clients_than_the_file_says(folder, tmp_path, refused):
    text = "clients_per_round: found 9, allowed is at most clients = 4."
    run_with(folder, tmp_path, refused, text, clients=4, clients_per_round=9)


def test_target_modules_that_match_nothing(folder, tmp_path, refused):
    model = {"name": "causal_lm", "path": str(folder / "model"), "lora_targets": ["w_proj"]}
    run_with(folder, tmp_path, refused, "lora_targets: 'w_proj' matches no linear layer.", model=model)


def test_missing_model_folder(folder, tmp_path, refused):
    model = {"name": "causal_lm", "path": str(tmp_path / "nowhere")}
    run_with(folder, tmp_path, refused, "nowhere", model=model)


def test_truncated_model_weights(folder, tmp_path, refused):
    from support.models import model_folder

    weights = model_folder(tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    run_with(
        folder, tmp_path, refused, "model.safetensors", model={"name": "causal_lm", "path": str(tmp_path / "model")}
    )


def test_adapter_of_another_shape(folder, tmp_path, refused):
    from fedloom import api

    for _ in api.start(api.load_run(write_run_file(folder, rounds=1)), tmp_path / "first"):
        pass
    model = {
        "name": "causal_lm",
        "path": str(folder / "model"),
        "lora_rank": 3,
        "adapter": str(tmp_path / "first/adapter"),
    }
    run_with(folder, tmp_path, refused, "adapter", model=model)


def test_existing_run_directory(folder, tmp_path, refused):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    run_with(folder, tmp_path, refused, "exists and is not empty; choose another --out")
    assert (tmp_path / "run" / "precious").read_text() == "mine"


def test_loss_that_is_not_finite_names_client_and_round(folder, tmp_path, refused):
    local = {"lr": 1e30, "steps": 8, "optimiser": "sgd", "clip_norm": 0.0}
    error = run_with(folder, tmp_path, refused, "client 'client", local=local)
    assert "round 0" in error or "round 1" in error


def test_model_whose_weights_are_not_finite(folder, tmp_path, refused):
    from support.models import model_folder

    weights = model_folder(tmp_path / "model") / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, weights, metadata={"format": "pt"})
    run_with(
        folder,
        tmp_path,
        refused,
        "no finite loss on example 0",
        model={"name": "causal_lm", "path": str(tmp_path / "model")},
    )


def test_too_little_memory_says_what_to_lower(folder, tmp_path, refused, monkeypatch):
    def no_memory(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr("fedloom.runs.execute.step", no_memory)
    run_with(folder, tmp_path, refused, "out of memory; lower local.batch, task.max_length or model.lora_rank")


def test_resume_of_nothing(tmp_path, refused):
    refused("no run directory (it has no run.toml)", "resume", tmp_path)


def test_comparing_an_unfinished_run(folder, tmp_path, refused):
    from fedloom import api

    events = api.start(api.load_run(write_run_file(folder)), tmp_path / "run")
    next(events)
    events.close()
    refused("the run is not complete; `fedloom resume", "compare", tmp_path / "run")


def test_test_data_that_repeat_training_data(folder, tmp_path, refused):
    path = write_lines(tmp_path, GOOD, GOOD | {"instruction": "w9"})
    text = "data: 2 of 2 test examples, the first number 0, also stand in the training data"
    run_with(folder, tmp_path, refused, text, **data_of(path, test_path=str(path)))


def test_validation_data_of_unknown_clients(folder, tmp_path, refused):
    path = write_lines(tmp_path, GOOD, GOOD | {"instruction": "w9"})
    other = write_records(tmp_path / "other.jsonl")
    text = "validation examples belong to no client of the partition"
    run_with(folder, tmp_path, refused, text, **data_of(path, validation_path=str(other)))


def test_client_without_a_name(folder, tmp_path, refused):
    path = write_lines(tmp_path, GOOD, GOOD | {"owner": ""})
    run_with(folder, tmp_path, refused, "column 'owner': found empty text", **data_of(path))


@pytest.mark.parametrize("words", [["fly"], ["run"], ["world"], ["run", "x.toml", "--seed"], ["show", "x" * 300]])
def test_wrong_words_on_the_command_line(refused, words):
    refused("fedloom: ", *words)


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["fedloom", *sys.argv[2:]]
from fedloom.cli.main import main
main()
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_later(folder, tmp_path, monkeypatch, capsys):
    """A limit on file sizes stands in for a full disk: the system refuses to write in the middle of a file."""
    model = {"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 128}
    file, out = write_run_file(folder, model=model), tmp_path / "run"
    words = ["run", str(file), "--quiet", "--out", str(out)]
    limited = subprocess.run([sys.executable, "-c", LIMITED, "300000", *words], capture_output=True, text=True)
    assert limited.returncode == 2 and "Traceback" not in limited.stderr
    assert "the disk is full" in limited.stderr or "could not be written" in limited.stderr
    code, _ = fedloom("resume", out, "--quiet", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0 and (out / "adapter" / "adapter_model.safetensors").exists()


def test_what_a_file_holds_is_shown_in_warnings_too(tmp_path, monkeypatch, capsys):
    """A file name with an escape sequence, in a warning about records of the file."""
    rows = [{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}] * 40
    rows[0] = {"messages": [*rows[0]["messages"], {"role": "user", "content": "and?"}]}
    file = tmp_path / "odd\x1b[2J.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["fedloom", "init", str(file), "--out", str(tmp_path / "run.toml")])
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr().err
    assert "nobody answered" in told and "\x1b" not in told
