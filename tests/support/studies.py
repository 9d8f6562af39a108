"""Tiny finished runs for the tests of the page: two methods, two seeds, a private run, names that want to be code."""

import json

from fedloom import api
from fedloom.base import config
from fedloom.benchmark.stated import Claim, Control
from fedloom.benchmark.suite import Suite, cells_of
from support.small_runs import small_run

HOSTILE = '<script>alert("x")</script> & <b>'
EVALUATION = {"max_new_tokens": 1, "resamples": 20, "every": 1}
PRIVATE = {
    "weighting": "uniform",
    "privacy": {"name": "gaussian", "unit": "client", "epsilon": 0.0, "noise_multiplier": 1.0, "delta": 0.1},
}


def run_to(folder, place, **changes):
    for _ in api.start(small_run(folder, rounds=2, evaluation=EVALUATION, **changes), place):
        pass


def hostile_data(folder):
    """Name one of the owners in the records of small_runs so that a page that does not escape runs it."""
    small_run(folder)
    path = folder / "data.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["owner"] = HOSTILE if record["owner"] == "client0" else record["owner"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make_study(folder):
    """Make a folder of finished runs and return it."""
    hostile_data(folder)
    for seed in (0, 1):
        run_to(folder, folder / "study" / f"fedavg_s{seed}", seed=seed)
        run_to(folder, folder / "study" / f"local_s{seed}", seed=seed, protocol="local_only")
    run_to(folder, folder / "study" / "private_s0", seed=0, **PRIVATE)
    return folder / "study"


def draw_anew(study, runs):
    """Make cards of some runs say that their clients own other examples than those of the other runs."""
    for path in study.glob(f"{runs}/partition.json"):
        card = json.loads(path.read_text())
        path.write_text(json.dumps(card | {"sha256": "another", "data_sha256": "another"}))


def score_by_client(study):
    """Let only client `seed` be right before training, and only that client be wrong after it."""
    for path in study.glob("*/results.jsonl"):
        unlike = (HOSTILE, "client1")[int(path.parent.name[-1])]
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            right = (line["tags"]["client"] == unlike) == (line["phase"] == "base")
            line["scores"]["exact_match"] = [float(right), 1.0]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_suite(folder):
    """Make the directory of a suite with two data sets, a bound and a claim, as `fedloom bench` leaves it."""
    run = config.table_of(small_run(folder, rounds=1, evaluation={"max_new_tokens": 1, "resamples": 20}))
    common = {key: run[key] for key in ("rounds", "model", "task", "data", "local", "evaluation")}
    suite = Suite(
        title="Two by three",
        score="loss",
        common=common,
        data={"one": {}, "other": {"local": {"lr": 0.01}}},
        methods={"fedavg": {}, "local": {"protocol": "local_only"}, "centralised": {"protocol": "centralised"}},
        claims=(Claim(text="training lowers no loss", kind="above", methods=("fedavg",), than="base"),),
        controls=(Control(arm="an oracle", why="nobody knows it"),),
    )
    place = folder / "suite"
    place.mkdir()
    (place / "suite.toml").write_text(config.dump(suite))
    for cell in cells_of(suite):
        for _ in api.start(cell.run, place / cell.folder):
            pass
    return place
