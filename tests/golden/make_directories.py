"""Makes `directories/` anew: small runs and a suite as they were written then, and what was read of them.

    python tests/golden/make_directories.py

`test_golden_directories.py` reads them with today's code: a directory that was written once can be read ever after, and
says the same. Weights and checkpoints are left out, and what tells of the machine.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

from fedloom import api, config
from fedloom.benching import carry_out, conclude_directory, opened_directory
from fedloom.claims import conclude
from fedloom.knowledge import knowledge_record
from fedloom.pages import write_report
from fedloom.protocols.tuning import read_run
from fedloom.reports import compare, compare_record, outcome, show_record
from fedloom.runs import RunDirectory
from fedloom.suites import cells_of, load_suite, load_suite_directory

HERE = Path(__file__).resolve().parent / "directories"
COMMON = {
    "rounds": 2,
    "local": {"steps": 2, "batch": 4, "lr": 2e-2},
    "evaluation": {"limit": 8, "max_new_tokens": 4, "resamples": 200},
    "data": {
        "name": "world",
        "n_clients": 3,
        "records": 6,
        "test_per_task": 1,
        "knowers_share": 0.7,
        "domains": ["medicine"],
    },
}
SUITE = {
    "title": "Golden",
    "seeds": [0, 1],
    "seed_keys": ["seed", "data.seed"],
    "common": COMMON,
    "data": {"world": {}},
    "methods": {"fedavg": {}, "local": {"protocol": "local_only"}, "scaffold": {"rule": {"name": "scaffold"}}},
    "claims": [
        {"text": "FedAvg is above training alone", "kind": "above", "methods": ["fedavg"], "than": "local"},
        {"text": "SCAFFOLD is not above it", "kind": "not_above", "methods": ["scaffold"], "than": "fedavg"},
    ],
}
PRIVATE = {"weighting": "uniform", "privacy": {"name": "gaussian", "delta": 1e-3, "epsilon": 8.0}}
RUNS = {
    "examples": PRIVATE,
    "clients": PRIVATE | {"privacy": PRIVATE["privacy"] | {"unit": "client"}, "clients_per_round": 2},
    "clustered": {"protocol": "clustered", "data": COMMON["data"] | {"languages": ["plain", "ruvo"]}},
}


def read(folder):
    """What today's code says of the directories, as JSON values."""
    suite = folder / "suite"
    pair = [outcome(RunDirectory.open(suite / "world" / name)) for name in ("fedavg_s0", "local_s0")]
    compared = compare(pair)
    return {
        "show": {name: show_record(outcome(RunDirectory.open(folder / name))) for name in RUNS},
        "compare": compare_record(compared) | {"facts": knowledge_record(compared)},
        "summary": conclude(load_suite_directory(suite)).record(),
    }


def words_of_page(suite):
    """What the page of a suite directory says, without its drawings and its form."""
    with tempfile.TemporaryDirectory() as folder:
        text = write_report(suite, Path(folder) / "page.html").read_text(encoding="utf-8")
    text = re.sub(r"<(svg|style|head).*?</\1>", " ", text, flags=re.DOTALL)
    return [line for piece in re.split(r"<[^>]*>", text) if (line := " ".join(piece.split()))]


def _anonymous(folder):
    for path in folder.rglob("*"):
        if path.is_dir() and path.name in ("checkpoints", "adapter", "adapters", "samples"):
            shutil.rmtree(path)
    for path in folder.rglob(".lock"):
        path.unlink()
    for path in folder.rglob("environment.json"):
        kept = json.loads(path.read_text()) | {"command": ["fedloom"], "host": "host", "platform": "Linux"}
        path.write_text(json.dumps(kept, indent=1))
    for path in folder.rglob("dirty.diff"):
        path.unlink()


def make():
    """Write all of it."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for name, changes in RUNS.items():
        list(api.start(read_run(COMMON | changes), HERE / name))
    file = HERE / "suite.toml"
    file.write_text(config.tomli_w.dumps(SUITE))
    suite = load_suite(file, quick=False)
    with opened_directory(suite, HERE / "suite"):
        for ended in carry_out(cells_of(suite), HERE / "suite", jobs=1):
            assert not ended.problem, ended.problem
    conclude_directory(HERE / "suite")
    file.unlink()
    _anonymous(HERE)
    expected = read(HERE) | {"page": words_of_page(HERE / "suite")}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    make()
