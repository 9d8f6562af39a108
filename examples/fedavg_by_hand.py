"""Federated averaging of the embedded model by hand: the same numbers as the framework, in plain PyTorch.

    python examples/fedavg_by_hand.py

Two clients of the controlled world, three rounds. `tests/test_example.py` compares the result with `fedloom run`.
"""

import math

import torch
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from fedloom.contracts.examples import Chat
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.batching import batches
from fedloom.models.causal_lm import CausalLM
from fedloom.tasks.sft import Sft
from fedloom.world import World

SEED, ROUNDS, CLIENTS = 0, 3, 2
LOCAL = LocalSettings(lr=2e-3, steps=2, batch=4, epsilon=1e-4)


def clients_data() -> dict[str, list[Chat]]:
    """Return every client's private conversations."""
    return {client.name: list(client.train) for client in World(SEED).clients(CLIENTS, records=10)}


def train() -> dict[str, torch.Tensor]:
    """Return the adapter after all rounds."""
    model = CausalLM(lora_rank=4).build(seed=SEED, device=torch.device("cpu"))
    task = Sft()
    shards = {name: [task.encode(chat, model) for chat in chats] for name, chats in clients_data().items()}
    everyone = sum(len(shard) for shard in shards.values())
    shared = model.trainable
    for round in range(ROUNDS):
        lr = 0.5 * LOCAL.lr * (1 + math.cos(math.pi * round / ROUNDS))
        mean = {name: torch.zeros_like(value) for name, value in shared.items()}
        for name, shard in shards.items():
            own = {key: value.clone().requires_grad_() for key, value in shared.items()}
            optimiser = torch.optim.AdamW(own.values(), lr=lr, weight_decay=0.0, eps=LOCAL.epsilon)
            for step in batches(len(shard), LOCAL, SEED, round, name):
                items = [shard[index] for micro in step for index in micro]
                # Padding lies behind, where no real token sees it.
                tokens_BT = pad_sequence([item.tokens_T.long() for item in items], batch_first=True)
                learnt_BT = pad_sequence([item.supervised_T for item in items], batch_first=True)
                logits_BTV = functional_call(model.module, own, kwargs={"input_ids": tokens_BT}).logits[:, :-1]
                labels_BT = tokens_BT[:, 1:].masked_fill(~learnt_BT[:, 1:], -100)
                loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(own.values(), LOCAL.clip_norm)
                optimiser.step()
            for key, value in own.items():
                mean[key] += len(shard) / everyone * value.detach()
        shared = mean
        print(f"round {round + 1}: last loss of the last client {loss.item():.4f}")
    return shared


if __name__ == "__main__":
    train()
