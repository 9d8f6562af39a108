"""Models, examples and clients for the tests of packing, kernels and engines: tiny, random and made in memory.

The oracle of all of them is `alone`: one example at a time through transformers' own eager attention.
"""

import re
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from torch.func import functional_call

from fedloom.base import rng
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Codec, Job, Local, Mechanism, Plan, Rule, ServerOpt, Shard, Work
from fedloom.contracts.language import Encoded
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.client import train_clients
from fedloom.federated.workspace import Workspace
from fedloom.models.causal_lm import CausalLM
from fedloom.models.lora import factor_names, place
from fedloom.tasks.sft import Sft
from support.models import VOCABULARY, model_folder

CPU = torch.device("cpu")
TASK = Sft()
# Plain gradient descent carries rounding on as it is. AdamW's first steps have the size of the learning rate whatever
# the gradient's size, so rounding of a gradient near zero would become a whole step: then epsilon has to be large.
PLAIN_SGD = {"optimiser": "sgd", "lr": 0.1, "clip_norm": 0.0}
SMOOTH_ADAMW = {"optimiser": "adamw", "lr": 0.02, "epsilon": 1e-3}


@cache
def folder_of(architecture, **changes):
    folder = Path(tempfile.mkdtemp(prefix="fedloom-tests-"))
    return model_folder(folder / "model", architecture, **changes)


def hardware_for_bfloat16():
    """A processor that emulates bfloat16 computes the same, only slowly; models refuse it for that."""
    return patch("fedloom.models.causal_lm.bfloat16_gain", lambda device: 1.0)


@cache
def tiny(
    architecture="llama",
    *,
    rank=2,
    attention="packed",
    dtype="float32",
    dropout=0.0,
    train=None,
    checkpointing=False,
    **changes,
):
    """A model; every factor it trains is random, B as well, so that no gradient is zero by accident."""
    family = CausalLM(
        path=str(folder_of(architecture, **changes)),
        lora_rank=rank,
        lora_alpha=4.0,
        lora_dropout=dropout,
        attention=attention,
        dtype=dtype,
        gradient_checkpointing=checkpointing,
    )
    with hardware_for_bfloat16():
        model = family.build(seed=0, device=CPU, train=train)
    draw, module = rng.generator("tiny"), model.module
    factors = {name: module.get_parameter(name) for name in factor_names(module)}
    place(module, {name: value + 0.05 * torch.randn(value.shape, generator=draw) for name, value in factors.items()})
    return replace(model, trainable={n: module.get_parameter(n).detach().clone() for n in model.trainable})


def random_params(model, *names):
    """Trained tensors moved to a random place; another one for other names."""
    draw, size = rng.generator("params", *names), 0.05 if model.stackable else 0.02
    return {name: value + size * torch.randn(value.shape, generator=draw) for name, value in model.trainable.items()}


def examples(lengths, *names, learnt=None):
    """Random examples of given lengths: the last token is supervised, others at random or, if given, `learnt` last."""
    draw = rng.generator("examples", *names)
    items = []
    for length in lengths:
        tokens = torch.randint(3, VOCABULARY - 1, (length,), generator=draw, dtype=torch.int32)
        supervised = torch.rand(length, generator=draw) < 0.6
        if learnt:
            supervised = torch.arange(length) >= length - learnt
        supervised[-1] = True
        items.append(Encoded(tokens, supervised))
    return items


def asked(item):
    """The tokens before those to be predicted, and those."""
    places = [t for t in range(1, len(item.tokens_T)) if item.supervised_T[t]]
    return [t - 1 for t in places], item.tokens_T.long()[places]


def logits_alone(module, params, item):
    """The logits [S, V] that an example is asked for, from a pass of it alone without anything of ours."""
    inputs = {"input_ids": item.tokens_T.long()[None], "use_cache": False}
    return functional_call(module, params, kwargs=inputs).logits[0, asked(item)[0]]


def loss_alone(module, params, item):
    """The summed loss of an example alone."""
    return torch.nn.functional.cross_entropy(logits_alone(module, params, item), asked(item)[1], reduction="sum")


def gradient_alone(module, params, item):
    """The gradient of an example's summed loss as one row [P], in the order of the parameters."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in params.items()}
    grads = torch.autograd.grad(loss_alone(module, leaves, item), list(leaves.values()), allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(leaf) if g is None else g).flatten() for g, leaf in zip(grads, leaves.values(), strict=True)]
    )


def distance(found, expected):
    """How far two tensors are apart, relative to the second."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def shards_of(lengths, *names, learnt=None):
    """A shard per client from the lengths of its examples."""
    return {f"client{k}": Shard(tuple(examples(own, *names, k, learnt=learnt))) for k, own in enumerate(lengths)}


def work(model, shards, *, local, share=".*", rule="plain", budgets=None, mechanism=None, codec="float32", ranks=None):
    """The client half of a run of these clients."""
    shared = {name: value for name, value in model.trainable.items() if re.search(share, name)}
    plan = Plan(
        rule=lookup(Rule, rule)(),
        server_opt=lookup(ServerOpt, "sgd")(),
        aggregator=lookup(Aggregator, "mean")(),
        codec=lookup(Codec, codec)(),
        mechanism=mechanism or lookup(Mechanism, "none")(),
        local=LocalSettings(**local),
        weighting="uniform",
        clients=tuple(shards),
        clients_per_round=len(shards),
        rounds=3,
        seed=0,
        stream=0,
        layout=Layout.of_tree(shared),
        budgets=budgets or {},
        ranks=ranks or {},
    )
    private = {name: value for name, value in model.trainable.items() if name not in shared}
    return Work(plan=plan, model=model, task=TASK, shards=shards, private=private)


def jobs_of(this, clients=None, *, round=0, memory=None, spent=None):
    """A job per client, all from the model's initial parameters."""
    start = {"": this.plan.layout.row({"": {n: v for n, v in this.model.trainable.items() if n not in this.private}})}
    own = memory or {}
    return [
        Job(
            client,
            round,
            this.plan.local.lr,
            Local(start, this.plan.rule.init_shared(start), own.get(client) or this.plan.rule.init_memory(start)),
            (spent or {}).get(client, 0),
        )
        for client in clients or this.shards
    ]


def trained(this, jobs=None, *, width=None):
    """Reports by client, of all clients together or `width` at a time."""
    jobs = jobs or jobs_of(this)
    width = width or len(jobs)
    space = Workspace.of(this, width)
    waves = [jobs[start : start + width] for start in range(0, len(jobs), width)]
    reports = [report for wave in waves for report in train_clients(this, wave, space)]
    return {report.client: report for report in reports}


def row(this, report):
    """The row that a report carries."""
    return this.plan.codec.decode(report.packet, report.layout.size)
