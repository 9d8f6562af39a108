"""An audit of a whole run: secrets are planted, the run is trained as it stands, and it is measured what got out.

Each canary is a conversation of random words, made by a named seed for one of the clients in turn; a fair coin of its
own decides whether it joins the client's examples or is left out. A fifth of each client's own examples is kept out
too: they are what training examples are told from, and have the same distribution. Then every round runs as the file
says, with the same steps, sampling and noise; included canaries count in a client's n.

What the bound bounds. The run M maps the M coins to what comes out. Flipping the coin of canary i changes the data of
its client c alone, by one example more or less. All that c ever sends is (epsilon_c, delta_c) private in that example,
and what the server and the other clients do with it is processing afterwards, so M is (epsilon_c, delta_c) private in
coin i. Theorem 5.2 of Steinke, Nasr & Jagielski 2023 (https://arxiv.org/abs/2305.08846) conditions on one coin after
another and asks of M nothing but that it is private in each; it therefore holds with the largest epsilon and the
largest delta over the clients, and one audit over the canaries of all clients tests the largest stated epsilon.

A client's n depends on how many of its canaries joined. As everywhere in fedloom n is taken as public: no guess is
made from it, but the theorem does not cover it.

An audit is not resumed: it keeps no checkpoint, and begins anew in a new directory.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.files import write_atomic
from fedloom.base.plugin import lookup
from fedloom.base.tree import flatten
from fedloom.contracts.examples import Chat
from fedloom.contracts.federated import Mechanism, PrivacyBudget, Work
from fedloom.contracts.language import Tokenizer, language_model
from fedloom.data.clients import encode_shards
from fedloom.evaluation.held_out import Examinee, HeldOut, evaluate, held_out
from fedloom.federated.rounds import State, begin
from fedloom.runs.attacked import (
    kept_out,
    random_chat,
    refuse_cut,
    refuse_malicious,
    refuse_several_models,
    trained,
    vocabulary,
)
from fedloom.runs.audit_bounds import exposure, guess_counts, loss_scores, membership, one_run_bound, reference_scores
from fedloom.runs.audit_releases import CONFIDENCE, audit_releases
from fedloom.runs.budgets import budgets_of
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import RoundDone
from fedloom.runs.planted import Target
from fedloom.runs.prepared import Prepared, prepare, refuse_dropout
from fedloom.runs.privacy import privacy_lines, worst_account
from fedloom.runs.stage import Stage
from fedloom.runs.tuning import TuningRun

__all__ = ["RELEASES", "Audited", "Canary", "audit", "check_audit", "make_canaries"]

NoiseChoice = Literal["kept", "removed"]
Losses = NDArray[np.float64]

RELEASES = 2000
"""Canaries in gradient space that an audit plants by default."""

_FEWEST = 16  # canaries: with fewer, no bound can pass 1.2
_DELTA = 1e-5  # of the bound where no delta is stated


@dataclass(frozen=True)
class Canary:
    """A planted secret."""

    example: Chat
    client: str
    included: bool


@dataclass(frozen=True)
class Audited:
    """What an audit has found, as JSON values."""

    record: Mapping[str, Any]


@dataclass(frozen=True)
class _Setup:
    """A run with its canaries planted."""

    ready: Prepared
    stage: Stage
    stated: Mapping[str, PrivacyBudget]
    """The budgets of the run as its file says; those of the stage have no noise if it was removed."""
    canaries: Sequence[Canary]
    sets: Mapping[str, HeldOut]
    """What is scored: `canaries`, `members` and `others`."""


def check_audit(run: TuningRun, *, n_canaries: int, noise: NoiseChoice) -> None:
    """Refuse, before anything is loaded, what cannot be audited."""
    refuse_several_models(run, "audit")
    refuse_malicious(run, "audit")
    if n_canaries < _FEWEST:
        raise ConfigError(f"audit: found {n_canaries} canaries, allowed are {_FEWEST} or more; raise --canaries.")
    if run.privacy.covers().in_sum:
        raise ConfigError(
            f"audit: found unit '{run.privacy.covers().name}', whose noise lies on whole numbers in a sum, where no "
            "canary is planted; audit the run with unit = 'client_local' of the mechanism 'gaussian'."
        )
    if noise == "removed" and not run.privacy.covers().private:
        raise ConfigError("audit: the run has no noise that --no-noise could remove; leave it out.")


def audit(
    run: TuningRun,
    directory: RunDirectory,
    *,
    n_canaries: int,
    noise: NoiseChoice = "kept",
    n_releases: int = RELEASES,
) -> Iterator[RoundDone | Audited]:
    """Train the run with canaries, yielding each round and at last what was found, which `audit.json` keeps.

    A private run is trained apart with `n_releases` canaries in gradient space, which are looked for in every release
    (`audit_releases`); 0 leaves that out. With privacy of clients that is all, since the secrets are examples.

    `noise` "removed" multiplies the noise by 0: the same run for comparison, and not private at all (the count behind
    an adaptive clipping norm keeps its noise).
    """
    check_audit(run, n_canaries=n_canaries, noise=noise)
    releases = _releases(run, n_releases, noise) if n_releases and run.privacy.covers().private else None
    if run.privacy.covers().whole_client:
        yield Audited(
            _written(directory, {"noise": noise, "refuted": bool(releases and releases["refuted"])}, releases)
        )
        return
    setup = _planted(run, n_canaries, noise)
    state = begin(setup.stage.plan, flatten(setup.ready.shared).cpu())
    base = _losses(setup, state)
    for done, event, _ in trained(setup.ready, setup.stage, directory):
        state = done
        yield event
    final = _losses(setup, state)
    lines = privacy_lines(replace(setup.stage.plan, budgets=setup.stated), state, {})
    found = _found(setup, lines, base, final, noise)
    if releases:
        found["refuted"] = found["refuted"] or releases["refuted"]
    directory.append("ledger.jsonl", lines)
    write_atomic(directory.path / "canaries.jsonl", _canary_lines(setup.canaries, base, final))
    yield Audited(_written(directory, found, releases))


def _written(directory: RunDirectory, found: dict[str, Any], releases: dict[str, Any] | None) -> dict[str, Any]:
    found |= {"releases": releases} if releases else {}
    write_atomic(directory.path / "audit.json", json.dumps(found, indent=1))
    return found


def _releases(run: TuningRun, n_trials: int, noise: NoiseChoice) -> dict[str, Any]:
    """Return what canaries in gradient space tell of the run's releases."""
    bare = prepare(replace(run, privacy=lookup(Mechanism, "none")(), ranks=()))  # budgets follow when n is known
    refuse_dropout(bare.model, run.privacy)
    if not bare.model.stackable and run.privacy.covers().per_example:
        return {}  # a model trained whole is audited by texts alone
    n_clients = len(bare.shards)
    # Half of the canaries join: as clients they then are as many as the real ones, and are drawn as often.
    per_training = n_trials if run.privacy.covers().per_example else 2 * n_clients
    work = _of_run(bare.stages[0].work, run)
    target = Target(
        replace(work, plan=replace(work.plan, clients_per_round=run.clients_per_round or sys.maxsize)),
        lambda sizes: budgets_of(run, sizes),
        noise=1.0 if noise == "kept" else 0.0,
    )
    return audit_releases(target, n_trials=n_trials, per_training=per_training, seed=run.seed)


# ----------------------------------------------------------------------------------------------------------- planting


def _planted(run: TuningRun, n_canaries: int, noise: NoiseChoice) -> _Setup:
    bare = prepare(replace(run, privacy=lookup(Mechanism, "none")()))  # budgets follow when n is known
    refuse_dropout(bare.model, run.privacy)
    canaries = make_canaries(language_model(bare.model).tokenizer, tuple(bare.shards), n_canaries, run.seed)
    refuse_cut([canary.example for canary in canaries], run.task, bare.model)
    train, members, others = kept_out(bare.division.train, run.seed)
    for canary in canaries:
        if canary.included:
            train[canary.client] = (*train[canary.client], canary.example)
    shards, _ = encode_shards(replace(bare.division, train=train), run.task, bare.model)
    stated = budgets_of(run, {client: len(owned) for client, owned in train.items()})
    used = {client: replace(budget, noise_multiplier=0.0) for client, budget in stated.items()}
    parts = {"canaries": [canary.example for canary in canaries], "members": members, "others": others}
    sets = {name: held_out(name, part, run.task, bare.model)[0] for name, part in parts.items()}
    work = _of_run(replace(bare.stages[0].work, shards=shards), run)
    work = replace(work, plan=replace(work.plan, budgets=stated if noise == "kept" else used))
    return _Setup(replace(bare, run=run), replace(bare.stages[0], work=work), stated, canaries, sets)


def _of_run(work: Work, run: TuningRun) -> Work:
    """Return the work with the mechanism that preparing it has left out."""
    return replace(work, plan=replace(work.plan, mechanism=run.privacy))


def make_canaries(tokenizer: Tokenizer, clients: Sequence[str], count: int, seed: int) -> tuple[Canary, ...]:
    """Return canaries for the clients in turn: random words as question and answer, each included by a fair coin."""
    words = vocabulary(tokenizer)
    random = rng.python_random("audit", seed, "canaries")
    canaries: list[Canary] = []
    for index in range(count):
        client = clients[index % len(clients)]
        canaries.append(Canary(random_chat(words, random, client), client, random.random() < 0.5))
    return tuple(canaries)


# --------------------------------------------------------------------------------------------------- training, scores


def _losses(setup: _Setup, state: State) -> dict[str, Losses]:
    """Return the loss per token of every scored example."""
    ready = setup.ready
    params = ready.layout.tree(state.params_P.to(ready.model.device))
    losses: dict[str, Losses] = {}
    for name, held in setup.sets.items():
        examinee = Examinee("", params, held)
        (scored,) = evaluate(ready.model, ready.run.task, [examinee], metrics={}, max_new_tokens=1)
        losses[name] = np.array([one.scores["loss"].value for one in scored])
    return losses


def _canary_lines(canaries: Sequence[Canary], base: Mapping[str, Losses], final: Mapping[str, Losses]) -> str:
    rows = zip(canaries, base["canaries"].tolist(), final["canaries"].tolist(), strict=True)
    lines = [
        {"client": canary.client, "included": canary.included, "base_loss": before, "final_loss": after}
        | {"question": canary.example.turns[0].text, "answer": canary.example.reference}
        for canary, before, after in rows
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


# ----------------------------------------------------------------------------------------------------------- findings


def _found(
    setup: _Setup,
    lines: list[dict[str, Any]],
    base: Mapping[str, Losses],
    final: Mapping[str, Losses],
    noise: NoiseChoice,
) -> dict[str, Any]:
    plan = setup.stage.plan
    stated = worst_account(plan, lines) if lines else None
    included_M = np.array([canary.included for canary in setup.canaries])
    scores = {
        "loss difference": reference_scores(final["canaries"], base["canaries"]),
        "final loss": loss_scores(final["canaries"]),
    }
    delta = stated["delta"] if stated else _DELTA
    guesses = guess_counts(len(included_M))
    bounds = {
        name: asdict(one_run_bound(score_M, included_M, delta=delta, guesses=guesses, confidence=CONFIDENCE))
        for name, score_M in scores.items()
    }
    bits_C = exposure(final["canaries"][included_M], final["canaries"][~included_M])
    limit = next(iter(stated["epsilon"].values())) if stated else math.inf
    return {
        "noise": noise if stated else "none",
        "stated": stated,
        "bound_delta": delta,
        "bounds": bounds,
        "refuted": bounds["loss difference"]["epsilon"] > limit,  # one test, chosen beforehand: the other is shown only
        "canaries": {"all": len(included_M), "included": int(included_M.sum()), "clients": len(plan.clients)},
        "exposure_bits": {"mean": float(bits_C.mean()), "max": float(bits_C.max())}
        | {"most": math.log2(1 + int((~included_M).sum()))},
        "membership": _memberships(base, final, included_M),
    }


def _memberships(
    base: Mapping[str, Losses], final: Mapping[str, Losses], included_M: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Return both attacks on canaries and on the clients' own examples."""

    def sides(losses: Mapping[str, Losses]) -> dict[str, tuple[Losses, Losses]]:
        planted = losses["canaries"][included_M], losses["canaries"][~included_M]
        return {"canaries": planted, "examples": (losses["members"], losses["others"])}

    rows: list[dict[str, Any]] = []
    for (kind, after), before in zip(sides(final).items(), sides(base).values(), strict=True):
        by_loss = membership(loss_scores(after[0]), loss_scores(after[1]))
        by_reference = membership(*(reference_scores(a, b) for a, b in zip(after, before, strict=True)))
        rows += [{"of": kind, "by": "loss"} | asdict(by_loss), {"of": kind, "by": "reference"} | asdict(by_reference)]
    return rows
