"""The training of one client, or of K clients together, in one round: the step that every engine shares.

The trainable numbers of a client lie in one row: shared parameters first, private ones behind. K rows are one matrix
[K, P]; the model sees views of it, rules and optimisers work on it whole, so a step is a handful of operations however
many layers and clients there are, and nothing is allocated from round to round. A client's numbers do not depend on
who shares its matrix. Clients lie in the order of their steps: those still training are always the first rows, and the
others are not touched at all.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import TrainingError
from fedloom.base.mean import Mean
from fedloom.base.tree import Layout, Slots, Tree, flatten, stack
from fedloom.contracts.attack import Moment
from fedloom.contracts.federated import Item, Job, Local, Plan, Report, Shard, Task, Work
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.privacy import ClientSide
from fedloom.federated.batching import batches, drawable, level, mixed, poisson
from fedloom.federated.kernels import example_gradients
from fedloom.federated.optimisers import advance
from fedloom.federated.ranks import Fit
from fedloom.federated.slopes import Slope, Step, by_whole_model
from fedloom.federated.workspace import Workspace

__all__ = ["train_clients"]

CPU = torch.device("cpu")


@dataclass
class _Client:
    """One client while it trains."""

    job: Job
    shard: Shard
    side: ClientSide
    task: Task
    steps: int
    drawn: Iterator[list[list[int]]]
    generator: torch.Generator
    fit: Fit | None
    own_seen: int = 0
    """Visits to its own examples, of a client that has generated ones, too."""
    missed: frozenset[int] = frozenset()
    """The steps that were made without it, where others take them together."""

    @property
    def taken(self) -> int:
        """The steps that it takes."""
        return self.steps - len(self.missed)

    def micros(self) -> list[Sequence[Item]]:
        """Return the micro-batches of the next step."""
        drawn, generated = next(self.drawn), self.shard.generated
        self.own_seen += sum(at not in generated for micro in drawn for at in micro) if generated else 0
        return [self.task.picked(self.shard.items, micro) for micro in drawn]

    @property
    def where(self) -> str:
        return f"client '{self.job.client}', round {self.job.round}"


def train_clients(work: Work, jobs: Sequence[Job], space: Workspace, slope: Slope = by_whole_model) -> list[Report]:
    """Return what clients send back after their local steps of one round, in the order of the jobs.

    `slope` gives gradients where no client has the whole model. Raises TrainingError, naming client, round and step, if
    a loss is not finite.
    """
    # Before the buffers are used for these jobs: a malicious client may train as others do.
    forged = {job.client: rows_CP for job in jobs if (rows_CP := _repeated(work, job, space)) is not None}
    trained = _trained(work, jobs, space, slope)
    return [_report(work, client, space, place, loss, forged.get(client.job.client)) for client, place, loss in trained]


def _trained(work: Work, jobs: Sequence[Job], space: Workspace, slope: Slope) -> list[tuple[_Client, int, Mean]]:
    """Train the clients of some jobs; return each, in their order, with its place in the buffers and its loss."""
    clients = [_client(work, job, space) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda index: -clients[index].steps)
    cohort = [clients[index] for index in order]
    for place, client in enumerate(cohort):
        local = client.job.local
        anchor_P = local.anchor[""]
        start_P = client.fit.to_client(anchor_P) if client.fit else anchor_P
        space.load(place, start_P, _private_row(work, local.memory), local.memory.get("optimiser"))
    losses = _train(work, cohort, space, slope)
    places = [order.index(index) for index in range(len(jobs))]
    return [(cohort[place], place, losses[place]) for place in places]


def _repeated(work: Work, job: Job, space: Workspace) -> Tensor | None:
    """Return the rows [C, P] that a malicious client's colluders would send; None where it repeats no other's training.

    They train one after another from the client's own start, with the memory of a first round.
    """
    if work.attack is None or not work.attacks(job.client, job.round):
        return None
    names = work.attack.repeats(job.client, tuple(work.poisoned))
    if tuple(names) == (job.client,):
        return None
    rows: list[Tensor] = []
    for name in names:
        local = replace(job.local, memory=work.plan.rule.init_memory(job.local.anchor))
        ((client, place, _),) = _trained(work, [replace(job, client=name, local=local)], space, by_whole_model)
        rows.append(_upload(work, client, space, place)[1])
    return torch.stack(rows)


def _client(work: Work, job: Job, space: Workspace) -> _Client:
    plan, shard, device = work.plan, work.shard(job.client, job.round), work.model.device
    local = _on_device(job.local, device)
    whose = (plan.stream, job.round, job.client)
    side = plan.mechanism.client_side(plan.budgets.get(job.client), whose, local.memory.get("mechanism", {}), job.spent)
    planned = plan.steps.get(job.client, plan.local.steps)
    return _Client(
        job=replace(job, local=local),
        shard=shard,
        side=side,
        task=work.task,
        steps=side.steps(planned),
        drawn=_drawn(plan, side, shard, replace(plan.local, steps=planned), job),
        generator=rng.generator(plan.seed, "dropout", job.round, job.client, device=device),
        fit=space.fit(plan.ranks[job.client]) if plan.ranks else None,
    )


def _drawn(plan: Plan, side: ClientSide, shard: Shard, settings: LocalSettings, job: Job) -> Iterator[list[list[int]]]:
    """Return the micro-batches of each step: shuffles of the round's level, or private draws of each example."""
    if side.budget is None or not plan.mechanism.covers().per_example:
        share, names = settings.share_generated(job.round), (plan.seed, job.round, job.client)
        own, made = drawable(shard, share)
        if share is not None and own and made:
            return mixed(own, made, share, settings, *names)
        places = range(len(shard.items)) if own and made else own or made
        now = level(len(places), settings.curriculum, round=job.round, rounds=plan.rounds)
        part = places[now.start : now.stop]
        return ([[part[at] for at in micro] for micro in step] for step in batches(len(part), settings, *names))
    rate, n_examples = side.budget.rate, len(shard.items)
    return (poisson(n_examples, rate, settings, side.draws(step)) for step in range(settings.steps))


def _train(work: Work, cohort: Sequence[_Client], space: Workspace, slope: Slope) -> list[Mean]:
    """Take all steps of a cohort sorted by them, most first; return each client's loss."""
    context, local, private = work.model.context, _local_of(cohort), work.plan.mechanism.covers().per_example
    losses = torch.zeros(cohort[0].steps, 2, len(cohort), dtype=torch.float64, device=work.model.device)
    try:
        for step in range(cohort[0].steps):
            going = [client for client in cohort if client.steps > step]
            context.generators = tuple(client.generator for client in going)
            parts = [client.micros() for client in going]
            if private:
                grad_KP = _private_gradient(work, space, going, parts, step)
            else:
                found = slope(_step(work, space, going, parts, step))
                if found is None:
                    for client in going:
                        client.missed |= {step}
                    continue
                grad_KP, losses[step, :, : len(going)] = found
            with torch.no_grad():
                _advance(work, space, grad_KP, _first(local, len(going)), going)
    finally:
        context.generators, context.batch, context.scaling_K = (), None, None
    return _checked(cohort, losses, space, counted=not private)


def _step(
    work: Work,
    space: Workspace,
    going: Sequence[_Client],
    parts: Sequence[Sequence[Sequence[Item]]],
    number: int,
) -> Step:
    job, clients = going[0].job, tuple(client.job.client for client in going)
    return Step(work, clients, job.round, number, job.lr, space.leaves(len(going)), parts, _scaling(going))


def _private_gradient(
    work: Work,
    space: Workspace,
    going: Sequence[_Client],
    parts: Sequence[Sequence[Sequence[Item]]],
    step: int,
) -> Tensor:
    """Return each client's noisy gradient [K, P]: its examples' gradients clipped and summed, noise added once.

    A client that drew no example takes the step all the same, on noise alone.
    """
    mechanism, context, device = work.plan.mechanism, work.model.context, space.rows_KP.device
    per = work.plan.local.tokens_per_example if work.plan.local.normalise == "tokens" else None
    sum_KP = torch.zeros_like(space.rows_KP[: len(going)])
    inside, total = [0.0] * len(going), [0] * len(going)
    told: list[tuple[int, Tensor]] = []
    for turn in range(max(len(micros) for micros in parts)):
        at = [place for place, micros in enumerate(parts) if turn < len(micros)]
        micros = [sorted(parts[place][turn], key=lambda item: -work.task.size(item)) for place in at]
        present = [going[place] for place in at]
        leaves = {name: leaf[at] for name, leaf in space.leaves(len(going)).items()}
        context.scaling_K, context.generators = _scaling(present), tuple(client.generator for client in present)
        kept = _by_example([client.side.state for client in present], [len(micro) for micro in micros], device)
        part_KP, scales_LE = example_gradients(
            work.model, work.task, leaves, micros, lambda norms_LE, kept=kept: mechanism.scales(norms_LE, kept), per=per
        )
        sum_KP[at] += part_KP
        whole = (scales_LE >= 1).float().mean(0).split([len(micro) for micro in micros])
        for place, whole_E in zip(at, whole, strict=True):
            told.append((place, whole_E.sum()))
            total[place] += len(whole_E)
    counts = torch.stack([count for _, count in told]).tolist() if told else []  # one look at the device for all
    for (place, _), count in zip(told, counts, strict=True):
        inside[place] += count
    for place, client in enumerate(going):
        sum_KP[place] = client.side.release(
            sum_KP[place], inside=inside[place], total=total[place], n_examples=len(client.shard.items), step=step
        )
        if client.fit:  # noise belongs where the client has parameters
            sum_KP[place] *= client.fit.keeps_P > 0
    return sum_KP


def _advance(work: Work, space: Workspace, grad_KP: Tensor, local: Local, going: Sequence[_Client]) -> None:
    """Move the rows of the clients that train by one step: the rule's correction, the clip, the optimiser."""
    rows_KP, shared = space.rows_KP[: len(going)], slice(space.n_shared)
    lr = going[0].job.lr
    grad_KP[:, shared] = work.plan.rule.correct({"": grad_KP[:, shared]}, {"": rows_KP[:, shared]}, local)[""]
    _clip(grad_KP, work.plan.local.clip_norm)
    advance(rows_KP, grad_KP, space.moments, work.plan.local, lr=lr)
    rows_KP[:, shared] = work.plan.rule.adjust({"": rows_KP[:, shared]}, local, lr=lr)[""]


def _clip(grad_KP: Tensor, clip_norm: float) -> None:
    """Scale each gradient down to the norm `clip_norm`, as torch.nn.utils.clip_grad_norm_ does; 0 leaves it alone."""
    if clip_norm:
        norm_K1 = torch.linalg.vector_norm(grad_KP, dim=1, keepdim=True)
        grad_KP.mul_(torch.clamp(clip_norm / (norm_K1 + 1e-6), max=1.0))


def _checked(cohort: Sequence[_Client], losses: Tensor, space: Workspace, *, counted: bool) -> list[Mean]:
    """Return each client's loss; refuse a step or a row that is not finite."""
    finite_KP = torch.isfinite(space.rows_KP[: len(cohort)]).all(1).tolist()
    for place, (client, totals_S, weights_S) in enumerate(zip(cohort, *losses.permute(1, 2, 0).tolist(), strict=True)):
        odd = [step for step, total in enumerate(totals_S) if not math.isfinite(total)]
        if odd:
            raise TrainingError(
                f"{client.where}, step {odd[0]}: the loss is {totals_S[odd[0]]}; allowed is a finite loss; lower "
                "local.lr or look for broken records."
            )
        if client.missed and not client.taken:
            raise TrainingError(f"{client.where}: every step of the round was made without this client.")
        if counted and not all(
            weight for at, weight in enumerate(weights_S[: client.steps]) if at not in client.missed
        ):
            raise TrainingError(f"{client.where}: a batch has nothing to learn (no supervised token).")
        if not finite_KP[place]:
            raise TrainingError(f"{client.where}: parameters are not finite; lower local.lr.")
    sums_2K = losses.sum(0).tolist()
    return [Mean(total, weight) for total, weight in zip(*sums_2K, strict=True)]


def _upload(work: Work, client: _Client, space: Workspace, place: int) -> tuple[Layout, Tensor, Slots]:
    """Return what a client's training came to: the row [P] with its layout, and what the rule has it remember."""
    shared_P = space.rows_KP[place, : space.n_shared]
    shared_P = client.fit.to_server(shared_P) if client.fit else shared_P
    upload, memory = work.plan.rule.finish({"": shared_P}, client.job.local, steps=client.taken, lr=client.job.lr)
    layout = Layout.of(upload)
    return layout, layout.row(upload).cpu(), memory


def _report(work: Work, client: _Client, space: Workspace, place: int, loss: Mean, forged_CP: Tensor | None) -> Report:
    job, plan = client.job, work.plan
    layout, row_P, memory = _upload(work, client, space, place)
    if work.attack is not None and work.attacks(job.client, job.round):
        rows_CP = row_P[None] if forged_CP is None else forged_CP
        row_P = work.attack.row(Moment(job.client, work.attack.seed_of(plan.seed), job.round, rows_CP))
    unit, n_examples = plan.mechanism.covers(), len(client.shard.items)
    per_step = plan.local.accumulation * plan.local.batch
    if unit.per_example and client.side.budget:
        per_step = client.side.budget.rate * n_examples
    # Steps follow from the client's number of examples where epochs are asked for: a protected client tells neither.
    steps = 0 if unit.whole_client else client.taken
    seen = round(steps * per_step)
    weight = 1.0 if unit.private else _weight(work, client, seen)
    packet, sent = _sent(plan, client, row_P, weight)
    return Report(
        client=job.client,
        packet=packet,
        layout=layout,
        weight=weight,
        n_examples=0 if unit.private else n_examples,
        samples_seen=seen,
        loss=Mean() if unit.private else loss,
        memory=_slots_on(memory | sent | _own_memory(work, client, space, place), CPU),
        steps=steps,
        own_seen=client.own_seen if client.shard.generated and not unit.private else None,
    )


def _sent(plan: Plan, client: _Client, row_P: Tensor, weight: float) -> tuple[Tensor, Slots]:
    """Return the packet that leaves the client, and what it keeps of what was lost in it."""
    job, own = client.job, Slots()
    if not row_P.numel():  # everything is private: nothing leaves
        return torch.zeros(0, dtype=torch.uint8), own
    row_P = client.side.row(row_P)
    if (summand := plan.aggregator.summand(row_P, weight)) is not None:
        return client.side.summand(summand), own
    if plan.codec.feedback() and "lost" in job.local.memory:
        row_P = row_P + job.local.memory["lost"][""].cpu()
    packet = plan.codec.encode(row_P)
    if plan.codec.feedback():
        own["lost"] = {"": row_P - plan.codec.decode(packet, row_P.numel())}
    return packet, own


def _weight(work: Work, client: _Client, seen: int) -> float:
    shard = client.shard
    own, made = drawable(shard, work.plan.local.share_generated(client.job.round))
    n_items = len(own) + len(made)
    counts = {"samples": n_items, "used_samples": min(seen, n_items), "quality": n_items * shard.quality, "uniform": 1}
    tokens = work.plan.weighting == "tokens"
    found = float(
        sum(work.task.targets(shard.items[at]) for at in (*own, *made)) if tokens else counts[work.plan.weighting]
    )
    return min(found, work.plan.max_weight or found)


def _own_memory(work: Work, client: _Client, space: Workspace, place: int) -> Slots:
    kept = client.side.state if work.plan.mechanism.covers().per_example else {}
    own: Slots = {"mechanism": kept} if kept else {}
    if work.private:
        own["private"] = {"": space.rows_KP[place, space.n_shared :].clone()}
    if work.plan.local.optimiser_state == "kept":
        own["optimiser"] = space.moments.saved(place)
    return own


# ------------------------------------------------------------------------------------------- what several clients know


def _local_of(cohort: Sequence[_Client]) -> Local:
    """Return what the clients of a cohort know, memories stacked; their anchor and shared slots are the same."""
    first = cohort[0].job.local
    anchor = first.anchor
    if cohort[0].fit:
        anchor = {"": torch.stack([client.fit.to_client(anchor[""]) for client in cohort if client.fit])}
    memories = [client.job.local.memory for client in cohort]
    own = {"private", "optimiser", "mechanism", "lost"}
    slots = [slot for slot in memories[0] if slot not in own]
    return Local(anchor, first.shared, {slot: stack([memory[slot] for memory in memories]) for slot in slots})


def _first(local: Local, n_clients: int) -> Local:
    """Return what the first clients know."""
    memory = {slot: {name: t[:n_clients] for name, t in tree.items()} for slot, tree in local.memory.items()}
    anchor = {name: t[:n_clients] if t.dim() > 1 else t for name, t in local.anchor.items()}
    return Local(anchor, local.shared, memory)


def _by_example(kept: Sequence[Tree], counts: Sequence[int], device: torch.device) -> Tree:
    """Return what mechanisms keep, a value per example."""
    repeats = torch.tensor(counts, device=device)
    values = {name: torch.stack([tree[name].to(device) for tree in kept]) for name in kept[0]}
    return {name: value.repeat_interleave(repeats) for name, value in values.items()}


def _scaling(going: Sequence[_Client]) -> Tensor | None:
    fits = [client.fit for client in going if client.fit]
    return torch.tensor([fit.scaling for fit in fits], device=fits[0].keeps_P.device) if fits else None


def _on_device(local: Local, device: torch.device) -> Local:
    """Return what the client knows on its device; states and memories rest on the CPU."""
    anchor = {name: tensor.to(device) for name, tensor in local.anchor.items()}
    return Local(anchor, _slots_on(local.shared, device), _slots_on(local.memory, device))


def _slots_on(slots: Slots, device: torch.device) -> Slots:
    return {slot: {name: tensor.to(device) for name, tensor in tree.items()} for slot, tree in slots.items()}


def _private_row(work: Work, memory: Slots) -> Tensor:
    if "private" in memory:
        return memory["private"][""]
    return flatten(work.private) if work.private else torch.zeros(0)
