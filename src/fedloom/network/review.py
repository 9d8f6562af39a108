"""The one page that an owner reads before it signs: what leaves, how noised, how often, and what the server sees.

All numbers are the node's own: shapes and bytes of the layout that its own model has, epsilon by its own accountant
from its own number of examples.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fedloom.base.config import differing_keys, value_at
from fedloom.base.shown import shown
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Plan, Work
from fedloom.federated.rounds import sample_clients
from fedloom.network.accounting import NodeAccounts, clip_of, epsilon_of, uses_of_round
from fedloom.network.hands import Hands
from fedloom.network.manifest import Manifest
from fedloom.network.node_file import NodeFolder
from fedloom.network.policy import violations
from fedloom.network.scoring import score_names

__all__ = ["review"]

_MOST = 12
"""Tensors that are named one by one."""


def review(folder: NodeFolder, manifest: Manifest) -> list[str]:
    """Return the page, a line each; data, model and layout of the node are checked: FedloomError."""
    hands = Hands(folder)
    works = hands.work(manifest)
    lines = [
        f"Run of {len(manifest.clients)} clients, manifest {manifest.digest}",
        f"  base {shown(manifest.table['base_id'])}",
        "",
        "WHAT LEAVES THIS NODE",
    ]
    for client, work in works.items():
        lines += _leaving(client, work, *hands.shape(manifest))
    lines += [*_steps(manifest, hands), *_scores(manifest, folder, hands)]
    lines += ["", "HOW IT IS PROTECTED"]
    for client, work in works.items():
        lines += _protected(client, work, folder)
    lines += [
        "",
        "WHAT THE SERVER SEES",
        *_seen(manifest),
        "",
        "SINCE THE LAST APPROVED RUN",
        *_changed(folder, manifest),
    ]
    odd = violations(folder.policy, manifest, **hands.extent(manifest))
    lines += ["", "WHAT YOUR POLICY SAYS", *(f"  refuses: {one}" for one in odd)]
    return lines if odd else [*lines, "  allows it"]


def _leaving(client: str, work: Work, layout: Layout, n_bytes: int) -> Iterator[str]:
    plan, asked = work.plan, _rounds_asked(work.plan, client)
    how = "under masks" if plan.aggregator.sum_only else f"by codec {plan.codec.name}"
    yield f"  client {shown(client)}: {len(work.shards[client].items)} examples are trained on; none of them leaves"
    yield (
        f"    {n_bytes:,} bytes in each of {asked} of {plan.rounds} rounds, {asked * n_bytes:,} in all: "
        f"{layout.size:,} numbers {how}"
    )
    yield from _tensors(layout.named_after(plan.layout))
    private = plan.mechanism.covers().private
    told = "weight 1, nothing of counts or losses" if private else "the number of examples, the training loss, steps"
    yield f"    beside them in each round: {told}"


def _steps(manifest: Manifest, hands: Hands) -> Iterator[str]:
    """Yield what leaves in the steps of a split model."""
    if most := hands.step_bytes(manifest):
        steps = max(hands.extent(manifest)["steps"], 1)
        told = manifest.settings["model"].get("attends") == "prefix_lm"
        of = "texts and of their prompts" if told else "texts"
        said = f"up to {most:,} bytes{' of each client' * (len(hands.work(manifest)) > 1)}"
        yield f"  in each of {steps} steps of a round: states, gradients and lengths of {of}, {said}"
        if noise := manifest.settings["protocol"]["noise"]:
            yield f"  on both lies Gaussian noise of {noise:g} times their root mean square, by a secret of this node:"
            yield "  empirical, no guarantee"
        yield "  The server could still reconstruct text from activations when it knows the client weights; measured"
        yield "  recovery on your model: run `fedloom split audit`."


def _scores(manifest: Manifest, folder: NodeFolder, hands: Hands) -> Iterator[str]:
    """Yield which scores of held-out examples leave, and how often."""
    settings = manifest.settings
    if not settings["deployment"]["evaluate"]:
        return
    every, rounds = settings["evaluation"]["every"], settings["rounds"]
    times = 2 + ((rounds - 1) // every if every else 0)
    asked = score_names(hands.run_of(manifest, next(iter(hands.work(manifest)))))
    odd = [name for name in asked if name not in folder.policy.metrics]
    yield (
        f"  scores of what clients hold out, a sum and a weight for each, {times} times: {', '.join(asked)}"
        + (f"; your policy's metrics lack {', '.join(odd)}, so that none is told" if odd else "")
    )


def _rounds_asked(plan: Plan, client: str) -> int:
    if plan.mechanism.covers().at_server:  # nobody knows who is drawn
        return plan.rounds
    return sum(client in sample_clients(plan, round) for round in range(plan.rounds))


def _tensors(layout: Layout) -> Iterator[str]:
    for slot, name, shape in layout.entries[:_MOST]:
        yield f"      {slot}/{name} {list(shape)}"
    if len(layout.entries) > _MOST:
        yield f"      and {len(layout.entries) - _MOST} more of the same kind"


def _protected(client: str, work: Work, folder: NodeFolder) -> Iterator[str]:
    plan, unit = work.plan, work.plan.mechanism.covers()
    if not unit.private:
        yield f"  client {shown(client)}: no noise; whoever sees the row may learn of single records"
        return
    if unit.at_server:
        yield f"  client {shown(client)}: the server clips and adds noise; what leaves this node has none"
        return
    budget = plan.budgets[client]
    uses = min(budget.max_uses, _rounds_asked(plan, client) * uses_of_round(plan, client))
    epsilon = epsilon_of(plan, budget, uses)
    before = NodeAccounts(folder.path, folder.policy.privacy).of_others("", client)
    yield (
        f"  client {shown(client)}: unit {unit.name}, clip {clip_of(plan, budget):g}, noise "
        f"{budget.noise_multiplier:g} times the clip; epsilon {epsilon:.3f} at delta {budget.delta:g} after all rounds"
        + (f", {epsilon + before:.3f} with earlier runs here" if before else "")
    )
    if whole := budget.of_sum:
        yield (
            f"    that noise is the sum's: each of at least {whole.least} honest clients adds a share, and a row by "
            "itself has too little; it protects as far as the secure sum holds"
        )


def _seen(manifest: Manifest) -> Iterator[str]:
    n_clients = manifest.settings["clients_per_round"] or len(manifest.clients)
    if manifest.settings["aggregator"]["name"] == "secure_sum":
        yield f"  the sum of the rows of {n_clients} clients a round, and no row by itself, as long as fewer collude"
        yield "  with it than the protocol's threshold; one that tells clients of unlike survivors learns nothing"
    else:
        yield f"  every row by itself, of {n_clients} clients a round"
    yield "  A server can send parameters crafted to make an update tell more. The policy's max_change bounds how"
    yield "  far they move and does not stop it: only noise, and a secure sum over enough honest clients, bound"
    yield "  what is told."


def _changed(folder: NodeFolder, manifest: Manifest) -> Iterator[str]:
    last = folder.last_approved()
    if last is None:
        yield "  this is the first one"
        return
    odd = differing_keys(last.table, manifest.table)
    for key in odd:
        yield f"  {shown(key)}: {_value(last.table, key)} -> {_value(manifest.table, key)}"
    if not odd:
        yield "  nothing"


def _value(table: Mapping[str, Any], key: str) -> str:
    return shown(str(value_at(table, key)))[:160]
