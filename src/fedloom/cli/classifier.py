"""`fedloom classifier`: a classifier of updates for `update_classifier`, from a run whose attackers are known."""

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.output import AsJson, RunFile, overriding, tell

__all__ = ["classifier"]


def classifier(
    file: RunFile,
    overrides: Annotated[list[str] | None, overriding("rounds=10")] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("classifier.json"),
    as_json: AsJson = False,
) -> None:
    """Train a simulated attack in memory, and a classifier on its updates; it is for judging other runs."""
    import torch

    from fedloom import api
    from fedloom.federated.update_classifier import write_classifier
    from fedloom.runs.attack_measures import auc
    from fedloom.runs.classified import classifier_of, labelled

    found = labelled(api.load_run(file, overrides or []))
    made = classifier_of(found)
    bad_N = made.probabilities(torch.stack(found.rows)).tolist()
    sides = [[one for one, bad in zip(bad_N, found.malicious, strict=True) if bad is side] for side in (True, False)]
    write_classifier(out, made)
    told = {"malicious": len(sides[0]), "benign": len(sides[1]), "auc_in_sample": auc(*sides).value, "file": str(out)}
    line = "{malicious} malicious and {benign} benign updates; AUC on the very same ones {auc_in_sample:.3f}; {file}"
    tell(told, texts=[line.format_map(told)], as_json=as_json)
