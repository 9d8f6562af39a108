"""Settings that make no sense together, each with what to change; all of it is known before anything is loaded."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedloom.base.plugin import lookup
from fedloom.contracts.federated import ServerOpt, Task
from fedloom.contracts.privacy import Unit
from fedloom.runs.choosing import better_end

if TYPE_CHECKING:
    from fedloom.runs.tuning import TuningRun

__all__ = ["contradictions"]


def contradictions(run: "TuningRun") -> Iterator[str]:
    """Yield a refusal for each contradiction in a run."""
    unit = run.privacy.covers()
    if run.protocol.splits:
        yield from _split(run)
    if unit.private:
        yield from _unaccounted(run)
    if unit.whole_client:
        yield from _beyond_a_row(run, unit)
    if unit.per_example:
        yield from _beyond_an_example(run)
    yield from _remembered(run)
    if run.evaluation.choose_by:
        yield from _unchosen(run)
    if run.local.warmup >= run.rounds:
        yield f"local.warmup: found {run.local.warmup} of {run.rounds} rounds, allowed is less than all of them."
    if run.local.curriculum > run.rounds:
        yield (
            f"local.curriculum: found {run.local.curriculum} levels in {run.rounds} rounds, allowed is a round for "
            "each at least; the last ones would never be trained on."
        )
    if run.aggregator.sum_only and not run.codec.exact:
        yield (
            f"codec: found '{run.codec.name}' with aggregator '{run.aggregator.name}', which adds rows unseen; allowed "
            "are exact codecs."
        )
    if run.aggregator.sum_only and run.rule.uniform_slots and run.weighting != "uniform":
        yield (
            f"weighting: found '{run.weighting}' with rule '{run.rule.name}', of which a part counts alike for all, "
            f"and aggregator '{run.aggregator.name}', which takes no row apart; set weighting = 'uniform'."
        )
    if run.deployment.over_select > 1 and unit.whole_client:
        yield (
            f"deployment.over_select: found {run.deployment.over_select:g} with privacy of clients, where a round that "
            "closes with the first reports has another sampling rate than is accounted for; set it to 1."
        )
    if run.deployment.evaluate:
        yield from _unasked(run)
    if run.audit_log and (hidden := _unseen_rows(run, unit)):
        yield f"audit_log: found true with {hidden}; leave audit_log out."
    if run.ranks and (run.rule.uniform_slots or run.share != ".*" or run.train is not None):
        yield (
            "ranks: clients of several ranks need a rule without controls, and both factors trained and shared; leave "
            "out train and share, and take rule 'plain' or 'prox'."
        )


def _unasked(run: "TuningRun") -> Iterator[str]:
    """Yield why clients elsewhere cannot be asked for scores."""
    if run.privacy.covers().private:
        yield ("deployment.evaluate: found true with privacy: scores of held-out records have no noise; leave it out.")
    if not run.evaluation.holdout:
        yield "evaluation.holdout: found 0 with deployment.evaluate; nothing is held out to be asked about: raise it."
    if run.evaluation.shown:
        yield "evaluation.shown: found with deployment.evaluate; a text must not travel to a node: leave it out."


def _split(run: "TuningRun") -> Iterator[str]:
    """Yield what asks for a client or a server that has the whole model, or for privacy of what passes in each step."""
    where = f"protocol '{run.protocol.name}'"
    if run.privacy.covers().private:
        yield (
            f"privacy: found '{run.privacy.name}' with {where}, whose clients send states and gradients in every step, "
            "which no epsilon covers; set privacy.name = 'none', or protocol = 'federated'."
        )
    if run.local.normalise != "tokens":
        yield (
            f"local.normalise: found '{run.local.normalise}' with {where}, whose steps are a mean over all clients' "
            "tokens; allowed is 'tokens'."
        )
    if type(run.task).prepared is not Task.prepared:
        yield (
            f"task: found '{run.task.name}' with {where}, which first asks the whole model, of which no client has the "
            "middle; allowed are tasks that learn from examples alone, such as 'sft'."
        )
    for key, found, why in (
        ("engine", run.engine.name if run.engine.starts_workers else "", "trains all clients of a round together"),
        ("attack", run.attack and run.attack.name, "has no malicious clients in simulation"),
        ("aggregator", run.aggregator.name if run.aggregator.looks else "", "has no whole model at its server"),
        ("refine", run.refine and run.refine[0].name, "has no whole model at its server"),
        ("deployment.evaluate", "true" if run.deployment.evaluate else "", "has no client with the whole model"),
        ("evaluation.choose_by", run.evaluation.choose_by, "keeps no earlier round of the server's adapters"),
    ):
        if found:
            yield f"{key}: found '{found}' with {where}, which {why}; leave it out, or set protocol = 'federated'."


def _unchosen(run: "TuningRun") -> Iterator[str]:
    """Yield why a round cannot be chosen."""
    where = f"evaluation.choose_by: found '{run.evaluation.choose_by}'"
    if not better_end(run):
        names = [metric.name for metric in run.evaluation.metrics if metric.higher_is_better is not None]
        yield f"{where}, allowed are {', '.join(['loss', *names])}: the loss and evaluation.metrics with a better end."
    if run.privacy.covers().private:
        yield (
            f"{where} with privacy: which round is kept would tell of held-out records, which nothing protects; leave "
            "it out."
        )
    if run.refine:
        yield f"{where} with refine, which changes the model after the last round; leave one of the two out."


def _unseen_rows(run: "TuningRun", unit: Unit) -> str:
    """Return why nothing may be told of single rows; "" where it may."""
    if run.aggregator.sum_only:
        return f"aggregator '{run.aggregator.name}', of which the server sees the sum of the rows alone"
    if unit.at_server:
        return f"privacy of unit '{unit.name}', which covers what is made of all rows together and no row by itself"
    return ""


def _unaccounted(run: "TuningRun") -> Iterator[str]:
    """Yield what lets more out of a client than any privacy covers."""
    if not run.protocol.accounted:
        yield (
            f"protocol: found '{run.protocol.name}' with privacy, which it does not account for; set privacy.name = "
            "'none', or protocol = 'federated'."
        )
    if run.weighting != "uniform":
        yield (
            f"weighting: found '{run.weighting}' with privacy, which would tell the sizes of clients and unbound their "
            "influence; allowed is 'uniform'."
        )
    if setting := run.data.brings_in() or run.partition.brings_in(run.clients):
        yield (
            f"privacy: found {setting} with it: where one record leaves, another comes in, so that data sets which "
            "differ by one record train on more than one other; leave it out, or write the chosen records to a file."
        )
    if not run.evaluation.by_text(private=True):
        yield (
            "evaluation.holdout_by: found 'count' with privacy, where one record less changes which others are held "
            "out; allowed is 'text'."
        )


def _beyond_a_row(run: "TuningRun", unit: Unit) -> Iterator[str]:
    """Yield what a client contributes besides the one row that its privacy bounds."""
    if run.share != ".*":
        yield (
            f"share: found '{run.share}' with privacy of unit '{unit.name}', which covers what is shared and not what "
            "each client keeps; leave it out, or protect examples."
        )
    if unit.at_server and len(set(run.ranks)) > 1:
        yield (
            "ranks: found several with privacy of clients, where they are dealt by the client's place: one that leaves "
            "changes the others'; give all one rank."
        )
    if run.rule.uniform_slots:
        yield (
            f"privacy: unit '{unit.name}' bounds one row, but rule '{run.rule.name}' uploads "
            f"{sorted(run.rule.uniform_slots)} besides; allowed are rules that upload their change alone."
        )
    if run.local.epochs and run.clients_per_round:
        yield (
            f"local.epochs: found {run.local.epochs:g} with privacy of clients and clients_per_round, where a client "
            "that leaves changes the others' steps; set local.steps, or let all clients take part."
        )
    if run.min_clients and not unit.in_sum:  # which counts on the fewest that it allows
        yield (
            f"min_clients: found {run.min_clients} with privacy of unit '{unit.name}', which is accounted for the "
            "probability with which a client takes part: the absent change it; leave it out."
        )
    if unit.in_sum and not run.aggregator.sum_only:
        yield (
            f"privacy: unit '{unit.name}' has clients add noise to whole numbers, of which the sum alone is seen; "
            f"found aggregator '{run.aggregator.name}'; allowed is 'secure_sum'."
        )
    if unit.at_server and not run.aggregator.linear:
        yield (
            f"privacy: unit '{unit.name}' adds noise to a sum, found aggregator '{run.aggregator.name}'; allowed is "
            "'mean'."
        )


def _beyond_an_example(run: "TuningRun") -> Iterator[str]:
    """Yield where one example decides about more than its own gradient."""
    if setting := next(filter(None, (one.brings_in() for one in run.prepare)), ""):
        yield (
            f"prepare: found {setting} with privacy of examples, one of which would decide about several that are "
            "trained on; leave it out, or protect clients (privacy.unit)."
        )
    if run.local.curriculum > 1:
        yield (
            f"local.curriculum: found {run.local.curriculum} with privacy of examples, each step of which draws from "
            "all of them; leave it out."
        )
    if run.local.p_generated is not None or run.local.pretrain or run.local.match_exposure:
        yield (
            "local: found p_generated, pretrain or match_exposure with privacy of examples, each of which is drawn by "
            "itself in each of the accounted steps; leave them out."
        )
    if run.local.epochs:
        yield (
            f"local.epochs: found {run.local.epochs:g} with privacy of examples, which is accounted for steps; set "
            "local.steps and leave epochs out."
        )


def _remembered(run: "TuningRun") -> Iterator[str]:
    """Yield what remembers numbers of a row whose meaning the aggregator changes."""
    remembers = {
        f"server_opt '{run.server_opt.name}' with these settings": run.server_opt != lookup(ServerOpt, "sgd")(),
        f"rule '{run.rule.name}'": bool(run.rule.uniform_slots),
        "local.optimiser_state 'kept'": run.local.optimiser_state == "kept",
        f"codec '{run.codec.name}' with error feedback": run.codec.feedback(),
    }
    found = [name for name, does in remembers.items() if does]
    if run.aggregator.changes_basis and found:
        yield (
            f"aggregator: '{run.aggregator.name}' gives the factors a new basis each round, found {found[0]}, which "
            "remembers numbers of the old one; allowed are server_opt 'sgd' with its defaults, rules without controls, "
            "a fresh optimiser and no error feedback."
        )
