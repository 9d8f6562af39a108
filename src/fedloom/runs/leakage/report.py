"""A leakage report: a run with planted secrets from its file to its final model, and what each attack finds in that.

    leakage.json            what was found, over all seeds
    audited.toml            the run, by a name under which none resumes
    ledger.jsonl            what left each client and the server, by seed, the server that refines shadows too
    seed_0/                 of each seed: secrets.jsonl, and what preparations and refinements keep

Every seed is a run of its own, with its own secrets, kept-out examples and noise. Shares and means are over the secrets
and examples of all seeds, those of membership over the seeds' own values; in intervals seeds are drawn before what they
hold. A report is not resumed. Its numbers come from clients' data past every mechanism: they are for whoever holds the
data, and no epsilon covers them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.files import disk_errors, plain, write_atomic
from fedloom.base.tree import flatten
from fedloom.contracts.examples import Chat, Example
from fedloom.data.holdout import normalised
from fedloom.federated.rounds import State, begin
from fedloom.runs.attacked import refuse_malicious, refuse_several_models, trained
from fedloom.runs.audit_bounds import exposure, loss_scores, reference_scores
from fedloom.runs.departures import division_lines, round_lines, server_lines
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import RoundDone
from fedloom.runs.leakage.attacks import lira_scores, min_k_scores
from fedloom.runs.leakage.found import Found, Reconstructed, of_seeds
from fedloom.runs.leakage.looking import Looking, learnable
from fedloom.runs.leakage.overlaps import overlaps
from fedloom.runs.leakage.secrets import Planting, Secret
from fedloom.runs.leakage.shadows import shadowed
from fedloom.runs.prepared import Prepared, prepare
from fedloom.runs.privacy import privacy_lines, worst_account
from fedloom.runs.tuning import TuningRun

__all__ = ["Asked", "Reported", "check_leakage", "leakage"]

Array = NDArray[np.float64]

_MOST_ANSWERS = 200  # of training examples, and of those kept out, that are asked for word for word


@dataclass(frozen=True)
class Asked:
    """How much is tried."""

    canaries: int = 8
    """Secrets of each number of repetitions."""
    repeats: tuple[int, ...] = (0, 1, 4, 16)
    seeds: int = 1
    shadows: int = 0


@dataclass(frozen=True)
class Reported:
    """What was found, as JSON values."""

    record: Mapping[str, Any]


def check_leakage(run: TuningRun, asked: Asked) -> None:
    """Refuse, before anything is loaded, what cannot be reported on."""
    refuse_several_models(run, "leakage")
    refuse_malicious(run, "leakage")
    if Chat not in run.task.learns:
        raise ConfigError(f"leakage: task is '{run.task.name}', which learns no conversations; secrets are such.")
    wrong = [
        ("--canaries", asked.canaries, "1 or more", asked.canaries >= 1),
        ("--seeds", asked.seeds, "1 or more", asked.seeds >= 1),
        ("--shadows", asked.shadows, "even numbers, 0 or more", asked.shadows >= 0 and asked.shadows % 2 == 0),
        (
            "--repeats",
            ",".join(map(str, asked.repeats)),
            "different whole numbers, none below 0, one above",
            min(asked.repeats, default=-1) >= 0 < max(asked.repeats) and len({*asked.repeats}) == len(asked.repeats),
        ),
    ]
    for option, found, allowed, holds in wrong:
        if not holds:
            raise ConfigError(f"{option}: found {found}, allowed are {allowed}.")


def leakage(run: TuningRun, directory: RunDirectory, asked: Asked) -> Iterator[RoundDone | Reported]:
    """Train the run with secrets once for each seed, yielding each round and at last what `leakage.json` keeps."""
    check_leakage(run, asked)
    found: list[Found] = []
    for seed in range(run.seed, run.seed + asked.seeds):
        home = RunDirectory(directory.path / f"seed_{seed}")
        with disk_errors(home.path):
            home.path.mkdir()
        for event in _attacked(replace(run, seed=seed), home, asked):
            if isinstance(event, Found):
                directory.append("ledger.jsonl", [{"seed": seed, **line} for line in event.ledger])
                found.append(event)
            else:
                yield event
    of_examples = run.privacy.covers().per_example
    head = {**asdict(asked), "seeds": [one.seed for one in found], "examples_are_protected": of_examples}
    record = plain(head | of_seeds(found, run.evaluation.resamples))
    write_atomic(directory.path / "leakage.json", json.dumps(record, indent=1))
    yield Reported(record)


def _attacked(run: TuningRun, home: RunDirectory, asked: Asked) -> Iterator[RoundDone | Found]:
    planting = Planting(run, each=asked.canaries, repeats=tuple(sorted(asked.repeats)))
    ready = prepare(run, home.path, planting)
    stage = ready.stages[0]
    state = first = begin(stage.plan, flatten(ready.shared).cpu())
    ledger = division_lines(ready)
    for done, event, told in trained(ready, stage, home):
        state = done
        ledger += round_lines(event.record, stage, state)
        ledger += server_lines(event.record.round, stage, told) if told else []
        yield event
    accounts = privacy_lines(stage.plan, state, ready.origins) if stage.plan.budgets else []
    stated = worst_account(stage.plan, accounts) if accounts else None
    found = _found(ready, planting, home, asked.shadows, (first, state))
    yield replace(found, ledger=[*ledger, *found.ledger, *accounts], privacy=stated)


def _found(
    ready: Prepared,
    planting: Planting,
    home: RunDirectory,
    n_shadows: int,
    states: tuple[State, State],
) -> Found:
    base, final = (Looking.at(ready, state) for state in states)
    canaries = planting.secrets.canaries
    canary_C, reference_R = (
        final.losses([planting.probe(one) for one in part]) for part in (canaries, planting.secrets.references)
    )
    bits_C = exposure(canary_C, reference_R).tolist()
    reached = [_reached(ready, one) for one in canaries]
    rows = zip(canaries, bits_C, reached, strict=True)
    lines = [asdict(one) | {"exposure_bits": bits, "in_examples": times} for one, bits, times in rows]
    write_atomic(home.path / "secrets.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    scores, sent = _scores(base, final, planting, n_shadows, home)
    return Found(
        seed=ready.run.seed,
        repeats=[one.repeats for one in canaries],
        bits=bits_C,
        reached=reached,
        verbatim=_verbatim(final, planting),
        reconstructed=_reconstructed(base, final, planting),
        scores=scores,
        overlaps=overlaps(home.path, planting.given),
        ledger=sent,
    )


def _reached(ready: Prepared, secret: Secret) -> int:
    """Return how many of the examples that its client trained on say a secret."""
    owned = ready.division.train.get(secret.client, ())
    return sum(secret.stands_in(example.text) for example in owned) if secret.repeats else 0


def _verbatim(final: Looking, planting: Planting) -> dict[str, list[float]]:
    """Return what is said word for word: canaries by repetitions, training examples and those that were kept out."""
    parts: dict[str, list[Example]] = {}
    for one in planting.secrets.canaries:
        parts.setdefault(f"canaries planted {one.repeats} times", []).append(planting.probe(one))
    parts |= {"training examples": planting.members, "examples kept out": planting.others}
    seed = final.ready.run.seed
    return {name: final.verbatim(_some(part, "leakage", seed, "answers", name)) for name, part in parts.items()}


def _some(examples: list[Example], *names: str | int) -> list[Example]:
    return rng.python_random(*names).sample(examples, min(_MOST_ANSWERS, len(examples)))


def _reconstructed(base: Looking, final: Looking, planting: Planting) -> list[Reconstructed]:
    found: list[Reconstructed] = []
    for planted in (True, False):
        part = [one for one in planting.secrets.sentences if bool(one.repeats) is planted]
        before, after = (looking.reconstructed(part, planting) for looking in (base, final))
        found += [Reconstructed(kind, planted, after[kind], before[kind]) for kind in after]
    return found


def _scores(
    base: Looking, final: Looking, planting: Planting, n_shadows: int, home: RunDirectory
) -> tuple[dict[str, tuple[Array, Array]], list[dict[str, Any]]]:
    """Return the scores of members and of others by each attack, and what shadow models let out of the server."""
    members, items = learnable(final.ready, planting.members)
    others, other_items = learnable(final.ready, planting.others)
    items = [*items, *other_items]
    before, after = (looking.token_losses(items) for looking in (base, final))
    loss_N, base_N = (np.array([float(losses.mean()) for losses in told]) for told in (after, before))
    scores = {
        "loss": loss_scores(loss_N),
        "reference": reference_scores(loss_N, base_N),
        "min-k": min_k_scores(after),
    }
    ledger: list[dict[str, Any]] = []
    if n_shadows:
        owner_N = [(planting.owners[normalised(one)], normalised(one)) for one in (*members, *others)]
        by_shadows = shadowed(final.ready, items, owner_N, n_shadows, home)
        scores["lira"] = lira_scores(loss_N, by_shadows.loss_SN, by_shadows.inside_SN)
        ledger = by_shadows.ledger
    return {name: (score_N[: len(members)], score_N[len(members) :]) for name, score_N in scores.items()}, ledger
