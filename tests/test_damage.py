"""Two thousand damaged inputs, drawn by a seed: each is read, or refused in one line; nothing ends in a traceback.

What is damaged: run files, suites, data in every format, the files of a model's folder, and those of a run.
"""

import json
import random
import shutil
import warnings

import pytest
import torch

from fedloom import api
from fedloom.base.errors import FedloomError
from fedloom.benchmark.suite import load_suite
from fedloom.data.forms import FORMS
from fedloom.data.sources.file import File
from fedloom.models.causal_lm import CausalLM
from fedloom.results.show import outcome, show_table
from fedloom.runs.directory import RunDirectory
from support.clients import folder_of
from support.paths import ROOT
from support.small_runs import small_run

EXPERIMENTS = ROOT / "experiments"
PARTS = 10  # of each family, so that a failure names a part that can be looked at
TOKENS = [
    *(b"", b"\x00", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\x1b[2J"),
    *(b"[", b"]", b"{", b"}", b'"', b"'", b",", b"=", b"\\", b"\\ud800", b"#", b"\n\n", b"[[", b"[" * 5000),
    *(b"null", b"NaN", b"nan", b"inf", b"-inf", b"true", b"-1", b"0", b"1e999", b"1e-999", b"-0.0"),
    *(b"9" * 30, b"9" * 400, b"9" * 5000, b"2147483648", b"9223372036854775808", b"0x", b"1979-05-27", b'""'),
]
KEYS = (
    *("seed", "rounds", "clients", "local.lr", "local.batch", "local.steps", "model.lora_rank", "model.lora_alpha"),
    *("task.max_length", "evaluation.holdout", "privacy.epsilon", "data.records", "ranks", "share", "threads"),
)


def damaged(draw, data):
    """A few bytes taken out, put in, turned or said twice."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice([0, 1, 1, 4, 16, 64, 400]))
        match draw.randrange(6):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = draw.choice(TOKENS)
            case 2:
                data[at:end] = draw.choice(TOKENS)
            case 3:
                data[at:at] = data[at:end]
            case 4 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case _ if words := [w for w in bytes(data).split() if w.isalnum()]:
                data = bytearray(bytes(data).replace(draw.choice(words), draw.choice([*TOKENS, draw.choice(words)]), 1))
    return bytes(data)


def refused(read):
    """Read something; return whether it was refused, in a line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except FedloomError as error:
            assert str(error).strip()
            return True
        except OSError as error:  # a path that the system refuses; the command says so in one line
            assert error.strerror
            return True
    return False


def drawn(family, part):
    return random.Random(f"damage {family} {part}")


@pytest.mark.parametrize("part", range(PARTS))
def test_run_files(tmp_path, part):
    draw, files = drawn("runs", part), sorted(EXPERIMENTS.glob("*.toml")) + sorted(EXPERIMENTS.glob("real/*.toml"))
    told = 0
    for number in range(60):
        file = tmp_path / f"{number}.toml"
        file.write_bytes(damaged(draw, draw.choice(files).read_bytes()))
        told += refused(lambda file=file: api.load_run(file))
    assert told > 10


@pytest.mark.parametrize("part", range(PARTS))
def test_overrides(part):
    draw, file = drawn("overrides", part), EXPERIMENTS / "quickstart.toml"
    told = 0
    for _ in range(40):
        override = f"{draw.choice(KEYS)}={draw.choice(TOKENS[8:]).decode(errors='replace')}"
        told += refused(lambda override=override: api.load_run(file, [override]))
    assert told > 10


@pytest.mark.parametrize("part", range(PARTS))
def test_suites(tmp_path, part):
    draw, files = drawn("suites", part), sorted((EXPERIMENTS / "suites").glob("*.toml"))
    told = 0
    for number in range(20):
        file = tmp_path / f"{number}.toml"
        file.write_bytes(damaged(draw, draw.choice(files).read_bytes()))
        told += refused(lambda file=file, quick=number % 2 == 0: load_suite(file, quick=quick))
    assert told > 1


@pytest.mark.parametrize("part", range(PARTS))
def test_data(tmp_path, part):
    draw = drawn("data", part)
    told = 0
    for number in range(60):
        name, form = draw.choice(list(FORMS.items()))
        record = json.dumps(form.example)
        kinds = {"jsonl": f"{record}\n{record}\n", "json": f"[{record}, {record}]", "csv": "prompt,completion\na,b\n"}
        kind = draw.choice(list(kinds))
        file = tmp_path / f"{number}.{kind}"
        file.write_bytes(damaged(draw, kinds[kind].encode(draw.choice(["utf-8", "utf-8", "utf-16"]))))
        told += refused(File(path=str(file), form=draw.choice(["auto", name])).load)
    assert told > 10


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    events = api.start(small_run(folder, rounds=3), folder / "run")
    for _ in range(3):
        next(events)
    events.close()
    return folder / "run"


@pytest.mark.parametrize("part", range(PARTS))
def test_run_directories(tmp_path, run_folder, part):
    draw = drawn("directories", part)
    told = 0
    for number in range(12):
        folder = tmp_path / str(number)
        shutil.copytree(run_folder, folder)
        file = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"))
        file.write_bytes(damaged(draw, file.read_bytes()))

        def read(folder=folder):
            show_table(outcome(RunDirectory.open(folder)))

        def go_on(folder=folder):
            list(api.resume(folder)[1])

        told += refused(read) + (refused(go_on) if number % 3 == 0 else 0)
    assert told


@pytest.mark.parametrize("part", range(PARTS))
def test_model_folders(tmp_path, part):
    draw, whole = drawn("models", part), folder_of("llama")
    told = 0
    for number in range(8):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        file = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
        file.write_bytes(damaged(draw, file.read_bytes()))
        family = CausalLM(path=str(folder), lora_rank=2)
        told += refused(lambda family=family: family.build(seed=0, device=torch.device("cpu")))
    assert told
