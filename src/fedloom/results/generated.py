"""How like a run's generated pairs are to the private examples that they stand for: a measure for simulations.

Whoever holds neither all clients' examples nor leave to read them cannot take it: in a deployment nobody can. Pairs are
those that were kept, of the last distillation at the server or of all clients' last preparation that makes any. As many
of either side are drawn by the seed. A score says little without what it is by chance, so the private examples are
measured against each other, too: one half against the other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.contracts.examples import Chat, Example
from fedloom.contracts.federated import CorpusMetric
from fedloom.data.clients import divide
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import TuningRun, run_of

__all__ = ["Likeness", "likeness"]


@dataclass(frozen=True)
class Likeness:
    """A score of generated pairs against private examples."""

    score: str
    pairs: float
    """Generated pairs against as many private examples."""
    halves: float
    """One half of the private examples against the other."""
    n_pairs: int
    n_halves: int


def likeness(folder: Path, metrics: Sequence[CorpusMetric], seed: int = 0) -> list[Likeness]:
    """Return each score of a run's generated pairs; too few texts for a score are refused with DataError."""
    directory = RunDirectory.open(folder)
    run = run_of(directory)
    made = _pairs(directory.path)
    if not made:
        raise DataError(f"{folder}: holds no generated pairs (refined/ or prepared/); give a run that makes some.")
    made = _shuffled(made, seed, "likeness", "pairs")  # they lie client by client
    owned = _shuffled(_private(run), seed, "likeness")
    n_pairs, n_halves = min(len(made), len(owned)), len(owned) // 2
    return [
        Likeness(
            metric.name,
            metric(made[:n_pairs], owned[:n_pairs]),
            metric(owned[:n_halves], owned[n_halves : 2 * n_halves]),
            n_pairs,
            n_halves,
        )
        for metric in metrics
    ]


def _shuffled(texts: list[str], *names: int | str) -> list[str]:
    return rng.python_random(*names).sample(texts, len(texts))


def _pairs(folder: Path) -> list[str]:
    """Return the kept pairs of the last distillation, or of the last preparation that makes pairs of documents."""
    cycles = sorted(folder.glob("refined/*/pairs.jsonl"))
    files = cycles[-1:] or _of_last_preparation(sorted(folder.glob("prepared/*/*/pairs.jsonl")))
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    if any(line["response"].startswith("sha256:") for line in lines):
        raise DataError(
            f"{files[0]}: holds hashes for texts; allowed are pairs of a run with evaluation.keep_text = true."
        )
    return [f"{line['instruction']}\n{line['response']}" for line in lines if not line["reason"]]


def _of_last_preparation(files: list[Path]) -> list[Path]:
    """Return the files of the last of the folders 0_NAME, 1_NAME and so on."""
    at = {file: int(file.parents[1].name.split("_")[0]) for file in files}
    return [file for file in files if at[file] == max(at.values())]


def _private(run: TuningRun) -> list[str]:
    division = divide(
        run.data,
        run.partition,
        n_clients=run.clients,
        seed=run.seed,
        aside=run.evaluation.aside(private=run.privacy.covers().private),
    )
    return [_text(example) for owned in division.train.values() for example in owned]


def _text(example: Example) -> str:
    return f"{example.prompt[-1].text}\n{example.reference}" if isinstance(example, Chat) else example.text
