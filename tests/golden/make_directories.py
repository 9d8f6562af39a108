"""Makes `directories/` anew: small runs, a suite, an examination and tasks as they were written then, and what was read
of them.

    python tests/golden/make_directories.py

`test_golden_directories.py` reads them with today's code: a directory that was written once can be read ever after, and
says the same. Weights and checkpoints are left out, and what tells of the machine.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import torch

from fedloom import api
from fedloom.base import config
from fedloom.benchmark.claims import conclude
from fedloom.benchmark.page import write_report
from fedloom.benchmark.runner import carry_out, conclude_directory, opened_directory
from fedloom.benchmark.suite import cells_of, load_suite, load_suite_directory
from fedloom.completers.model import LocalModel
from fedloom.judged.grading import Examination
from fedloom.judged.run import sit
from fedloom.lm_eval.compare import compare_results
from fedloom.lm_eval.examine import Wanted, examine, read_items, read_result
from fedloom.lm_eval.language_model import Scorer
from fedloom.results.knowledge import knowledge_record
from fedloom.results.show import compare, compare_record, outcome, show_record
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import read_run

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
EXAMINATION = {
    "exams": [
        {"name": "world_exam", "test": "public", "per_task": 1, "max_new_tokens": 8},
        {"name": "pairwise", "of": {"name": "world_exam", "test": "public", "per_task": 1, "max_new_tokens": 8}},
    ],
    "judge": {"name": "canned", "patterns": {"(?s)a": "Grade: [[7]] and [[A]]", "(?s).": "Grade: [[3]] and [[B]]"}},
    "resamples": 200,
}
WHO = {"candidate": {"a": "one answer", "": "another"}, "against": {"": "a third"}}
TASKS = {
    "choice": (
        'shuffled = true\nprompt = "{question}\\nAnswer:"\noptions = ["{right}", "{wrong}"]\n',
        [{"question": f"Which word is {n}?", "right": f"word {n}", "wrong": f"stone {n}"} for n in range(6)],
    ),
    "text": (
        'prompt = "{question}"\nanswer = "answer"\nmax_new_tokens = 4\n',
        [{"question": f"What follows {n}?", "answer": str(n + 1)} for n in range(4)],
    ),
}


def completer(folder, name):
    """The file of a completer that answers by what a question says."""
    file = folder / f"{name}.toml"
    patterns = {key or ".": answer for key, answer in WHO[name].items()}
    file.write_text(config.tomli_w.dumps({"completer": {"name": "canned", "patterns": patterns}}))
    return file


def examined(folder):
    """Take the examination in a folder of two completers, or read it where it was taken."""
    examination = config.build(Examination, EXAMINATION)
    here = Path.cwd()
    os.chdir(folder)  # `asked.toml` names the completers as they were called
    try:
        return sit(Path("candidate.toml"), examination, Path("exam"), against=Path("against.toml"))
    finally:
        os.chdir(here)


def write_tasks(folder, out):
    """Ask the embedded model two tasks of own files, with a template and without one."""
    for name, (table, rows) in TASKS.items():
        kind = f'name = "{name}"\nversion = 1\nkind = "{name}"\n'
        (folder / f"{name}.toml").write_text(kind + table)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    built = LocalModel().model.build(seed=0, device=torch.device("cpu"))
    wanted = Wanted(tasks=tuple(str(folder / f"{name}.toml") for name in TASKS), data_dir=folder)
    for name, template in (("template", LocalModel().template), ("plain", None)):
        examine(Scorer(built, built.trainable, template), wanted, out / name, report=lambda _: None)


def read(folder):
    """What today's code says of the directories, as JSON values."""
    tasks = {name: folder / "tasks" / name for name in ("template", "plain")}
    suite = folder / "suite"
    pair = [outcome(RunDirectory.open(suite / "world" / name)) for name in ("fedavg_s0", "local_s0")]
    compared = compare(pair)
    return {
        "show": {name: show_record(outcome(RunDirectory.open(folder / name))) for name in RUNS},
        "compare": compare_record(compared) | {"facts": knowledge_record(compared)},
        "summary": conclude(load_suite_directory(suite)).record(),
        "exam": examined(folder).record,
        "tasks": {
            "results": {f"{kind} {name}": read_result(tasks[kind] / name) for kind in tasks for name in TASKS},
            "items": {f"{kind} {name}": read_items(tasks[kind] / name) for kind in tasks for name in TASKS},
            "compare": compare_results(tasks["template"], tasks["plain"]),
        },
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
    for name in WHO:
        completer(HERE, name)
    examined(HERE)
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(Path(folder), HERE / "tasks")
    _anonymous(HERE)
    expected = read(HERE) | {"page": words_of_page(HERE / "suite")}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    make()
