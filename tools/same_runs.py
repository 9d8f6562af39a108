"""Small runs of every kind, and whether two makings of them are the same to the byte, wall times apart.

    python tools/same_runs.py make DIR           a folder for each kind, by the code that is imported; half a minute
    python tools/same_runs.py compare ONE OTHER  every file of both; exit code 0: the same, 1: not

For a change that must change nothing: make with the code before and after, and compare. `make` goes on where it was
stopped. What tells of the machine and the moment (`environment.json`, `dirty.diff`, wall times, sizes of logs) is left
out.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"

SMALL = (
    "rounds=2", "local.steps=2", "local.batch=4", "data.n_clients=4", "data.records=10", "data.test_per_task=2",
    "evaluation.limit=6", "evaluation.max_new_tokens=4", "evaluation.resamples=20",
)  # fmt: skip

KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("quickstart", ()),
    "sequential": ("quickstart", ("engine.name=sequential",)),
    "local_only": ("quickstart", ("protocol=local_only",)),
    "centralised": ("quickstart", ("protocol=centralised",)),
    "clustered": ("quickstart", ("protocol=clustered", 'data.languages=["plain","ruvo"]')),
    "scaffold": ("quickstart", ("rule.name=scaffold", "clients_per_round=3")),
    "prox_yogi": ("quickstart", ('rule={name="prox",mu=0.1}', "server_opt.name=yogi", "weighting=uniform")),
    "kept_moments": ("quickstart", ("local.optimiser_state=kept", "share=lora_A", "evaluation.every=1")),
    "lora_svd": ("mixed_ranks", ()),
    "compressed": ("compressed", ('codec={name="top_k",share=0.1}',)),
    "private_examples": ("private_examples", ("privacy.delta=1e-3",)),
    "private_clients": ("private_clients", ("clients_per_round=3",)),
    "private_clients_adaptive": (
        "private_clients",
        ("clients_per_round=3", "privacy.clip_quantile=0.5", "privacy.clip_count_noise=2"),
    ),
    "private_rows": ("private_clients", ("clients_per_round=3", "privacy.unit=client_local")),
    "dpo": ("quickstart", ("task.name=dpo", "data.form=preference", 'data.tests=["preferences"]')),
    "whole_model": ("quickstart", ("model.lora_rank=0", "local.lr=1e-3")),
}

_MOMENT = {"environment.json", "dirty.diff", ".lock"}
_TIMES = ("wall_s", "logs", "state_sha256")


def make(folder: Path) -> None:
    """Carry out a small run of every kind that has not ended."""
    from fedloom import api

    for kind, (file, changes) in KINDS.items():
        if (folder / kind / "report.md").is_file():
            continue
        sys.stdout.write(f"{kind}\n")
        run = api.load_run(EXPERIMENTS / f"{file}.toml", [*SMALL, *changes])
        if (folder / kind / "run.toml").is_file():
            _, events = api.resume(folder / kind, expected=run)
        else:
            events = api.start(run, folder / kind)
        for _ in events:
            pass


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield what differs between two folders, a line for each file."""
    names = sorted({path.relative_to(root) for root in (one, other) for path in root.rglob("*") if path.is_file()})
    for name in names:
        if name.name in _MOMENT:
            continue
        missing = [str(root) for root in (one, other) if not (root / name).is_file()]
        if missing:
            yield f"{name}: missing in {missing[0]}"
        elif _content(one / name) != _content(other / name):
            yield f"{name}: differs"


def _content(path: Path) -> Any:
    """Return the bytes of a file, or the records of one that holds wall times."""
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.name == "state.json":
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.name == "report.md":
        return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("- wall_s:")]
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def main(words: list[str] | None = None) -> int:
    """Do what the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("folder", type=Path)
    compare = commands.add_parser("compare")
    compare.add_argument("one", type=Path)
    compare.add_argument("other", type=Path)
    told = parser.parse_args(words)
    if told.command == "make":
        make(told.folder)
        return 0
    found = list(differences(told.one, told.other))
    sys.stdout.writelines(f"{line}\n" for line in found or ["the same"])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
