"""What the documents show is what the framework does."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from fedloom import api
from fedloom.base import config
from fedloom.data.records import read_records
from fedloom.people.dataset import DataSet, make_data
from fedloom.runs.tuning import read_run
from support.models import model_folder
from support.paths import ROOT
from support.tools import tool


def test_fedavg_by_hand_equals_the_framework(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import fedavg_by_hand as example

    by_hand = example.train()
    local = {key: vars(example.LOCAL)[key] for key in ("lr", "steps", "batch", "epsilon")}
    table = {
        "seed": example.SEED,
        "rounds": example.ROUNDS,
        "model": {"name": "causal_lm", "lora_rank": 4},
        "data": {"name": "world", "seed": example.SEED, "n_clients": example.CLIENTS, "records": 10},
        "local": local,
        "evaluation": {"metrics": [], "limit": 1},
    }
    for _ in api.start(read_run(table), tmp_path / "run"):
        pass
    ours = load_file(tmp_path / "run/checkpoints/round_00003/params.safetensors")
    for name, value in by_hand.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=2e-6)


# Files of suites and examinations are no run files, and some need files that are not here: their own tests read them.
RUN_FILES = [
    file
    for file in sorted((ROOT / "experiments").rglob("*.toml"))
    if file.parent.name not in ("suites", "exams", "fedllm_bench", "sets")
]


@pytest.mark.parametrize("file", RUN_FILES, ids=lambda path: path.stem)
def test_shipped_run_file_has_a_header(file):
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(re.search("fedloom (run|leakage)", line) for line in header)
    assert any("Expected:" in line for line in header)


def test_every_shipped_run_file_is_tested():
    assert len(RUN_FILES) >= 10


def miniature(file, folder):
    """The overrides that make a shipped run small: two rounds, one step, few records; nothing else changes."""
    table = config.read_toml(file)
    data, per_round = table.get("data", {}), table.get("clients_per_round", 0)
    words = [
        "rounds=2",
        "local.steps=1",
        "local.batch=8",
        "evaluation.limit=2",
        "evaluation.resamples=20",
        "evaluation.max_new_tokens=2",
        "evaluation.holdout=0.1" if "path" in data else "evaluation.holdout=0.01",
    ]
    if "refine" in table:  # a professional that needs no run before this one
        teacher = 'teacher = { name = "canned", patterns = { "." = "in northgate" } }'
        sizes = "questions = 6, keep = 3, max_question_tokens = 12"
        words.append(f'refine = [{{ name = "knowledge", {sizes}, {teacher}, local = {{ steps = 1, batch = 2 }} }}]')
    if file.parent.name == "real":  # a model that is fetched; `make real-test` has it
        words += [f"model.path={model_folder(folder / 'model')}", "task.template=vicuna"]
    if "clients" in table:
        words += ["clients=3", *(["clients_per_round=2"] if per_round else [])]
    if file.stem == "topic_writer":  # its data are made by a tool
        assert tool("topic_writer").main(["--out", str(folder)]) == 0
        return [*words, f"data.path={folder / 'writer.jsonl'}", "evaluation.holdout=0.1"]
    if data.get("name") == "captures":  # its people are made by a command
        list(make_data(DataSet(studios=2, people=1, validation=0, test=1, size=48, views=4), folder))
        paths = [f"data.path={folder / 'train'}", f"data.test_path={folder / 'test'}"]
        return [*words, *paths, "evaluation.holdout=0.0", "task.rays=32", "task.cell_m=0.03", "local.batch=1"]
    if "path" in data:
        return [*words, f"data.path={shortened(ROOT / data['path'], folder)}"]
    if data.get("name") == "digits":
        return [*words, "data.test=20"]
    if data.get("name") == "danger":  # aligned by a run before this one
        words += ["data.records=12"] + (["model.adapter="] if "model" in table else [])
        return words
    words.append("data.test_per_task=1")
    if per_round:
        return [*words, f"data.n_clients={per_round + 1}"]
    if table.get("aggregator", {}) and table["aggregator"]["name"] == "secure_sum":  # of two rows a sum tells each
        return [*words, "data.n_clients=4"]
    return [*words, "data.n_clients=2"] if data else [*words, "data.n_clients=3", "data.records=8"]


def shortened(path, folder, count=60):
    """A copy of a file of JSON or JSON Lines with every so many records of it."""
    records = [record.values for record in read_records(path)]
    lines = [json.dumps(dict(values)) for values in records[:: -(-len(records) // count)]]
    short = folder / path.name
    short.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    return short


def marks_of(file):
    if file.stem.endswith("_ray"):
        return pytest.mark.carriers
    shared = [pytest.mark.shared] if "../shared" in file.read_text() else []
    return shared if file.stem in ("quickstart", "digits", "generated") else [*shared, pytest.mark.slow]


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=marks_of(file)) for file in RUN_FILES],
    ids=lambda path: path.stem,
)
def test_shipped_run_file_runs_two_rounds(file, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = api.load_run(file, miniature(file, tmp_path))
    for _ in api.start(run, tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "report.md").exists()


def test_a_chain_of_stages_by_hand_makes_pairs_and_moves_the_adapter(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import chain_by_hand as example

    found = example.chain(tmp_path)
    assert "anna: What does Mira sell? -> figs\n" in capsys.readouterr().out
    assert any(bool(value.any()) for name, value in found.items() if name.endswith("lora_B"))
