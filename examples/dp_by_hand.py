"""Example-level DP-SGD of adapters by hand: the same numbers as the framework, in plain PyTorch.

    python examples/dp_by_hand.py

Two clients of the controlled world, three rounds. In every step an example takes part by a coin of its own; the
gradients of those that do are computed one by one, clipped, added up, given noise once and divided by the *expected*
number. `tests/test_dp_by_hand.py` compares the result with `fedloom run`.

The noise comes from named seeds so that it can be compared; where something must be protected, set noise = "system".
"""

import math
from statistics import NormalDist

import torch
from torch.func import functional_call

from fedloom.base import rng
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Chat
from fedloom.contracts.federated import Model
from fedloom.contracts.language import Encoded
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.privacy.gaussian import Gaussian
from fedloom.models.causal_lm import CausalLM
from fedloom.tasks.sft import Sft
from fedloom.world import World

SEED, ROUNDS, CLIENTS, RECORDS = 0, 3, 2, 12
LOCAL = LocalSettings(lr=0.5, steps=3, batch=4, optimiser="sgd", clip_norm=0.0, tokens_per_example=3.0)
PRIVACY = Gaussian(epsilon=0.0, noise_multiplier=0.8, clip=0.3, delta=0.01)


def clients_data() -> dict[str, list[Chat]]:
    """Return every client's private conversations."""
    return {client.name: list(client.train) for client in World(SEED).clients(CLIENTS, records=RECORDS)}


def gradient(model: Model, params: Tree, item: Encoded) -> Tree:
    """Return the gradient of one example's loss: summed over its supervised tokens, over a fixed number of them."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    tokens_1T = item.tokens_T.long()[None]
    logits_TV = functional_call(model.module, leaves, kwargs={"input_ids": tokens_1T}).logits[0, :-1]
    labels_T = tokens_1T[0, 1:].masked_fill(~item.supervised_T[1:], -100)
    loss = torch.nn.functional.cross_entropy(logits_TV, labels_T, reduction="sum") / LOCAL.tokens_per_example
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def drawn(n_examples: int, rate: float, *names: str | int) -> list[int]:
    """Return the examples that take part in a step, each by itself with probability `rate`."""
    coins_N = rng.named_normal("sampling", *names)(n_examples)
    return (coins_N < NormalDist().inv_cdf(rate)).nonzero().flatten().tolist()


def private_gradient(model: Model, params: Tree, items: list[Encoded], rate: float, *names: str | int) -> Tree:
    """Return the noisy gradient of one step."""
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    for index in drawn(len(items), rate, *names):  # maybe nobody: then noise alone
        found = gradient(model, params, items[index])
        norm = math.sqrt(sum(float(part.square().sum()) for part in found.values()))
        for name, part in found.items():
            total[name] += min(1.0, PRIVACY.clip / norm) * part
    sizes = [value.numel() for value in total.values()]
    noise = rng.named_normal("noise", *names)(sum(sizes)).split(sizes)
    scale, expected = PRIVACY.noise_multiplier * PRIVACY.clip, rate * len(items)
    return {
        name: (value + scale * part.view_as(value)) / expected
        for (name, value), part in zip(total.items(), noise, strict=True)
    }


def train() -> Tree:
    """Return the adapter after all rounds."""
    model = CausalLM(lora_rank=4).build(seed=SEED, device=torch.device("cpu"), train="lora_B")
    task = Sft()
    shards = {name: [task.encode(chat, model) for chat in chats] for name, chats in clients_data().items()}
    shared = model.trainable
    for round in range(ROUNDS):
        lr = 0.5 * LOCAL.lr * (1 + math.cos(math.pi * round / ROUNDS))
        mean = {name: torch.zeros_like(value) for name, value in shared.items()}
        for client, items in shards.items():
            rate, own = min(1.0, LOCAL.batch / len(items)), shared
            for step in range(LOCAL.steps):
                slope = private_gradient(model, own, items, rate, SEED, round, client, step)
                own = {name: value - lr * slope[name] for name, value in own.items()}
            for name, value in own.items():
                mean[name] += value / len(shards)  # all alike: their sizes are nobody's business
        shared = mean
        print(f"round {round + 1}: the adapter has moved to a norm of {norm_of(shared):.4f}")
    for client, items in shards.items():
        budget = PRIVACY.budget(population=len(items), expected=min(LOCAL.batch, len(items)), uses=ROUNDS * LOCAL.steps)
        spent = PRIVACY.spent(budget, ROUNDS * LOCAL.steps)["pld"]
        print(f"client {client}: epsilon {spent:.3f} at delta {budget.delta:.3f}")
    return shared


def norm_of(tree: Tree) -> float:
    """Return the norm of all numbers together."""
    return math.sqrt(sum(float(value.square().sum()) for value in tree.values()))


if __name__ == "__main__":
    train()
