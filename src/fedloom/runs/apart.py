"""A run prepared in parts: the server's from the clients' names alone, a client's from its own data alone."""

from collections.abc import Sequence
from pathlib import Path

from fedloom.base.errors import ConfigError, DataError
from fedloom.contracts.arrangement import Group
from fedloom.contracts.federated import Work
from fedloom.data.clients import Division, encode_shards
from fedloom.evaluation.held_out import HeldOut, held_out
from fedloom.runs.budgets import budgets_of
from fedloom.runs.prepared import Prepared, divided, load_model, made, refuse_known_questions
from fedloom.runs.stage import Loaded, stage_of
from fedloom.runs.tuning import TuningRun

__all__ = ["held_by", "prepare_client", "prepare_server"]


def prepare_server(run: TuningRun, clients: Sequence[str]) -> Prepared:
    """Return the server's half of a run whose clients are elsewhere, from their names alone: it reads no example.

    `clients` are in the order of the whole run. Refused is what a server without data cannot do: ConfigError.
    """
    if run.clients_per_round > len(clients):
        raise ConfigError(
            f"clients_per_round: found {run.clients_per_round}, the federation has {len(clients)} clients."
        )
    _refuse_shared_knowledge(run, clients[0], clients)
    _refuse_data_at_server(run)
    loaded = load_model(run)
    unit = run.privacy.covers()
    # What clients protect by themselves is their own affair; noise in a sum is the same for all of them.
    budgets = budgets_of(run, {}, clients, numbers=loaded.layout.size) if unit.at_server or unit.in_sum else {}
    stage = stage_of(
        run, Group("", {}, run.clients_per_round or len(clients), run.local.steps), loaded, budgets, clients
    )
    stage.plan.aggregator.check_count(stage.plan.clients_per_round)
    _ = stage.server
    card = {"clients": list(clients), "base_id": loaded.model.base_id}
    return Prepared(
        **vars(loaded),
        run=run,
        division=Division({}, {}, (), card, {}),
        shards={},
        counts={},
        owned={},
        held=(),
        stages=(stage,),
    )


def _refuse_data_at_server(run: TuningRun) -> None:
    """Refuse what looks at clients' examples in one place."""
    asked = run.evaluation
    for key, found in (
        ("prepare", bool(run.prepare)),
        ("evaluation.membership", asked.membership is not None),
        ("evaluation.choose_by", bool(asked.choose_by)),
        ("evaluation.absent", bool(asked.absent)),
        ("audit_log", run.audit_log),
    ):
        if found:
            raise ConfigError(
                f"{key}: found in a run whose clients are elsewhere, where nobody sees all examples; leave it out."
            )


def prepare_client(
    run: TuningRun, client: str, clients: Sequence[str], folder: Path | None = None, loaded: Loaded | None = None
) -> Work:
    """Return one client's half of a run, from its own data alone: all examples of `run.data` are taken for its own.

    `clients` are the names of all, in the order of the whole run. What the client then sends is what it sends in a run
    prepared in one place. Refused is what no client can know of the others: ConfigError. `loaded` is the run's model,
    where it is at hand.
    """
    _refuse_shared_knowledge(run, client, clients)
    division = divided(run, owner=client)
    refuse_known_questions(run, division)
    loaded = loaded or load_model(run)
    shards, _ = encode_shards(made(run, division, folder), run.task, loaded.model)
    budgets = budgets_of(run, {client: len(shards[client].items)}, clients, numbers=loaded.layout.size)
    group = Group("", shards, run.clients_per_round or len(clients), run.local.steps)
    return stage_of(run, group, loaded, budgets, clients).work


def held_by(run: TuningRun, client: str, loaded: Loaded) -> HeldOut:
    """Return what a client holds out of its own data, as the run says; DataError where that is nothing."""
    held = divided(run, owner=client).validation.get(client, ())
    if not held:
        raise DataError(f"evaluation.holdout: client '{client}' holds out none of its examples.")
    return held_out("validation", held, run.task.examining(), loaded.model)[0]


def _refuse_shared_knowledge(run: TuningRun, client: str, clients: Sequence[str]) -> None:
    if client not in clients or len(set(clients)) < len(clients):
        raise ConfigError(f"clients: found {list(clients)} for '{client}'; list every client once, this one too.")
    if run.attack is not None:
        raise ConfigError(
            f"attack: found '{run.attack.name}'; who attacks is drawn in a simulation alone; leave it out of a "
            "client's own run file."
        )
    if not (run.protocol.accounted or run.protocol.splits):
        raise ConfigError(
            f"protocol: found '{run.protocol.name}', which groups clients by what all of them hold; a client prepares "
            "itself for 'federated'."
        )
    if run.evaluation.holdout and not run.evaluation.by_text(private=run.privacy.covers().private):
        raise ConfigError(
            "evaluation.holdout_by: found 'count', by which no text is held out that another client holds too; a "
            "client alone knows no other's texts: set 'text', or holdout = 0."
        )
