"""The real round on toy problems: `federated.rounds.step` with clients that take whole gradients and have no model."""

from dataclasses import dataclass, replace
from itertools import count

import torch

from fedloom.base import tree
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Codec, Mechanism, Plan, Report, Rule, ServerOpt
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.rounds import begin, sample_clients, step


def make(family, name, **settings):
    return lookup(family, name)(**settings)


def torch_gradient(gradient):
    """A NumPy gradient as one from tensor to tensor."""
    return lambda w: torch.from_numpy(gradient(w.double().numpy())).to(w.dtype)


def drawing(plan, sampled, round):
    """The plan with a seed for which the round draws just these clients."""
    return next(p for p in (replace(plan, seed=seed) for seed in count()) if sample_clients(p, round) == sampled)


class Exact(Codec):
    """Rows as their own bytes, of either precision."""

    exact = True

    def encode(self, row_P):
        return row_P.contiguous().view(torch.uint8)

    def decode(self, packet, size):
        return packet.view({4: torch.float32, 8: torch.float64}[packet.numel() // size])


@dataclass
class Training:
    """Rounds of one rule and one server optimiser; call `round` with the clients that take part, in client order."""

    clients: list
    """(gradient function, weight) of each client; the gradient may be called `steps` times a round."""
    start: torch.Tensor
    rule: Rule
    server: ServerOpt
    steps: int
    lr: float
    weighting: str = "samples"

    def __post_init__(self):
        self.plan = Plan(
            rule=self.rule,
            server_opt=self.server,
            aggregator=make(Aggregator, "mean"),
            local=LocalSettings(lr=self.lr, schedule="constant", steps=self.steps),
            clients=tuple(str(index) for index in range(len(self.clients))),
            clients_per_round=len(self.clients),
            rounds=1000,
            seed=0,
            mechanism=make(Mechanism, "none"),
            weighting="samples",
            codec=Exact(),
            layout=Layout.of_tree({"w": self.start}),
            stream=0,
        )
        self.state = begin(self.plan, self.start)

    def carry(self, jobs):
        """The carrier: each client's report after its local steps of plain gradient descent."""
        for job in jobs:
            function, weight = self.clients[int(job.client)]
            gradient, params = torch_gradient(function), job.local.anchor
            for _ in range(self.steps):
                grad = self.rule.correct({"": gradient(params[""])}, params, job.local)
                params = self.rule.adjust(tree.add(params, grad, -job.lr), job.local, lr=job.lr)
            upload, memory = self.rule.finish(params, job.local, steps=self.steps, lr=job.lr)
            layout = Layout.of(upload)
            packet = self.plan.codec.encode(layout.row(upload))
            share = weight if self.weighting == "samples" else 1.0
            counts = int(weight), self.steps, Mean(0.0, 1.0)
            yield Report(job.client, packet, layout, share, *counts, memory, self.steps)

    def round(self, sampled):
        """Return the parameters after one more round."""
        plan = replace(self.plan, clients_per_round=len(sampled))
        plan = drawing(plan, [str(index) for index in sampled], self.state.round)
        self.state, _ = step(plan, self.state, self.carry)
        return self.state.params_P

    @property
    def shared(self):
        """The server's slots by name, their one vector under "w"."""
        return named(self.state.shared)

    @property
    def memory(self):
        """The slots of each client that took part, by its number."""
        return {int(client): named(slots) for client, slots in self.state.memory.items()}


def named(slots):
    return {slot: {"w": content[""]} for slot, content in slots.items()}


def trace(clients, theta0, rule, server, *, schedule, steps, lr, weighting="samples", dtype=torch.float64):
    """Return the parameters after each round of a schedule, as NumPy vectors."""
    start = torch.as_tensor(theta0, dtype=dtype)
    training = Training(clients, start, rule, server, steps, lr, weighting)
    return [training.round(sampled).double().numpy() for sampled in schedule]
