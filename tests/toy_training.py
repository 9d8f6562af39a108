"""A small driver: federated rounds of fedloom's plug-ins on toy problems, whole local gradients, no model."""

from dataclasses import dataclass, field

import torch

from fedloom import tree
from fedloom.contracts import Aggregator, Local, Rule, ServerOpt
from fedloom.plugin import lookup
from fedloom.tree import Layout


def make(family, name, **settings):
    return lookup(family, name)(**settings)


def torch_gradient(gradient):
    """A NumPy gradient as one from tensor to tensor."""
    return lambda w: torch.from_numpy(gradient(w.double().numpy())).to(w.dtype)


def mean_upload(uploads, weights, uniform_slots):
    """The aggregate of uploads as the round makes it: uniform slots with equal weights."""
    aggregator, layout = make(Aggregator, "mean"), Layout.of(uploads[0])
    weighted, uniform = aggregator.accumulator(), aggregator.accumulator()
    for upload, weight in zip(uploads, weights, strict=True):
        weighted.add(layout.row(upload), weight)
        uniform.add(layout.row(upload), 1.0)
    return layout.slots(torch.where(layout.columns(uniform_slots), uniform.result(), weighted.result()))


@dataclass
class Training:
    """Rounds of one rule and one server optimiser; call `round` with the clients that take part."""

    clients: list
    """(gradient function, weight) of each client."""
    params: torch.Tensor
    rule: Rule
    server: ServerOpt
    steps: int
    lr: float
    weighting: str = "samples"
    count: int = 0
    memory: dict = field(default_factory=dict)

    def __post_init__(self):
        self.shared = self.rule.init_shared({"w": self.params})
        self.opt = self.server.init({"w": self.params})

    def train(self, index):
        """Return the upload of one client after its local steps of plain gradient descent."""
        memory = self.memory.get(index) or self.rule.init_memory({"w": self.params})
        local = Local({"w": self.params}, self.shared, memory)
        gradient, params = torch_gradient(self.clients[index][0]), {"w": self.params}
        for _ in range(self.steps):
            grad = self.rule.correct({"w": gradient(params["w"])}, params, local)
            params = self.rule.adjust(tree.add(params, grad, -self.lr), local, lr=self.lr)
        upload, self.memory[index] = self.rule.finish(params, local, steps=self.steps, lr=self.lr)
        return upload

    def round(self, sampled):
        """Return the parameters after one more round."""
        weights = [self.clients[i][1] if self.weighting == "samples" else 1.0 for i in sampled]
        mean = mean_upload([self.train(index) for index in sampled], weights, self.rule.uniform_slots)
        delta, self.shared = self.rule.merge(self.shared, mean, fraction=len(sampled) / len(self.clients))
        params, self.opt = self.server.step({"w": self.params}, delta, self.opt, round=self.count)
        self.params, self.count = params["w"], self.count + 1
        return self.params


def trace(clients, theta0, rule, server, *, schedule, steps, lr, weighting="samples", dtype=torch.float64):
    """Return the parameters after each round of a schedule, as NumPy vectors."""
    start = torch.as_tensor(theta0, dtype=dtype)
    training = Training(clients, start, rule, server, steps, lr, weighting)
    return [training.round(sampled).double().numpy() for sampled in schedule]
