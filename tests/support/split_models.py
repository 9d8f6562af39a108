"""Models of six blocks to be cut, clients' examples of unequal length, and the uncut model's gradients as an oracle."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from fedloom.base.tree import Layout
from fedloom.contracts.language import Encoded
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.kernels import client_gradients
from fedloom.models.causal_lm import CausalLM
from fedloom.split.body import Body, Middle
from fedloom.split.carrier import SplitSettings
from fedloom.split.ends import Ends, Said, Turn
from fedloom.split.wire import WIRES
from fedloom.tasks.sft import Sft
from fedloom.text.pretrained import quiet
from support.models import model_folder, tokenizer

BLOCKS = 6
TASK = Sft()
CPU = torch.device("cpu")


@cache
def folder(architecture="llama", **changes) -> Path:
    return model_folder(Path(mkdtemp()) / architecture, architecture, num_hidden_layers=BLOCKS, **changes)


def model(architecture="llama", *, rank=2, dropout=0.0, settings=(), **changes):
    """A model whose factors B are no longer zero, so that every adapter has a gradient."""
    path = str(folder(architecture, **changes))
    family = CausalLM(path=path, lora_rank=rank, lora_dropout=dropout, **dict(settings))
    return moved(family.build(seed=3, device=CPU))


def moved(made, by=0.05):
    draw = torch.Generator().manual_seed(7)
    for tensor in made.trainable.values():
        tensor.add_(torch.randn(tensor.shape, generator=draw), alpha=by)
    return made


@cache
def pilot():
    """A model of the specification's pilot: 6 blocks of width 128, a vocabulary of 2,048, as it is before training."""
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    path = Path(mkdtemp()) / "pilot"
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
        tokenizer().save_pretrained(path)
    return CausalLM(path=str(path)).build(seed=3, device=CPU)


def examples(*lengths, seed=0):
    draw = torch.Generator().manual_seed(100 + seed)
    return [
        Encoded(torch.randint(3, 60, (n,), generator=draw, dtype=torch.int32), torch.arange(n) >= n // 3)
        for n in lengths
    ]


def stacked(made, n_clients):
    return {
        name: tensor.expand(n_clients, *tensor.shape).clone().requires_grad_()
        for name, tensor in made.trainable.items()
    }


def seeds_of(clients, micro=0):
    return {client: (1, 0, client, 0, micro, "dropout") for client in clients}


def uncut(made, parts, *, dropout=False, n_micro=1):
    """The uncut model's gradient by name and loss of several clients, over micro-batches of each client's examples."""
    leaves, grads, loss = stacked(made, len(parts)), None, 0
    layout = Layout.of_tree(made.trainable)
    for micro in range(n_micro):
        made.context.seeds = tuple(seeds_of([f"c{k}" for k in range(len(parts))], micro).values()) if dropout else ()
        found = client_gradients(made, TASK, leaves, [part[micro::n_micro] for part in parts])
        grads = found.sum_KP if grads is None else grads + found.sum_KP
        loss = loss + torch.stack((found.total_K, found.weight_K))
    made.context.seeds = ()
    return layout.tree(grads), loss


class Halves:
    """A server and the clients of one cut, driven message by message."""

    def __init__(
        self,
        made,
        cut,
        n_clients,
        *,
        wire="float32",
        cuts=(),
        settings=None,
        recompute=False,
        tokens=0,
        shield=None,
        **kinds,
    ):
        self.shield, self.made, self.wire = shield, made, WIRES[wire]
        self.clients = tuple(f"c{k}" for k in range(n_clients))
        of = dict(zip(self.clients, cuts or (cut,) * n_clients, strict=True))
        self.ends = Ends.of(made, cut)
        adapters = SplitSettings(**{"private": "replicas" not in kinds} | kinds).adapters(self.clients)
        middle = Middle.of(made, list(of.values()))
        self.body = Body(
            middle, of, self.wire, settings or LocalSettings(), adapters, recompute=recompute, tokens=tokens
        )

    def gradients(self, parts, *, dropout=False, n_micro=1):
        """Gradients by name, the server's among them, and losses; no step is taken."""
        leaves, total, loss = stacked(self.made, len(parts)), {}, 0
        for micro in range(n_micro):
            seeds = seeds_of(self.clients, micro) if dropout else dict.fromkeys(self.clients, (0,))
            turn = self.turn([part[micro::n_micro] for part in parts], seeds, micro, leaves, dropout=dropout)
            body, _ = self.body.forward(turn.ahead(), seeds, micro=micro)
            back, refused, _ = self.body.backward(turn.loss(body), seeds, micro)
            assert not refused
            for name, grad in turn.back(back).items():
                total[name] = total[name] + grad if name in total else grad
            loss = loss + turn.loss_2K
        return total | self.at_server(), loss

    def turn(self, parts, seeds, micro=0, leaves=None, *, dropout=False):
        said = Said(self.clients, 0, micro, self.wire)
        own = list(seeds.values()) if dropout else ()
        return Turn(self.ends, TASK, leaves or stacked(self.made, len(parts)), parts, said, own, shield=self.shield)

    def at_server(self):
        """The gradients that the server has gathered, by name."""
        rows_KP = torch.stack([self.body.gathered[client].sum_P for client in self.clients])
        return Layout.of_tree(self.body.middle.initial).tree(rows_KP)


def distance(found, wanted):
    """The norm of the difference of all numbers together over that of the wanted ones."""
    assert found.keys() == wanted.keys()
    flat = [torch.cat([grads[name].double().flatten() for name in wanted]) for grads in (found, wanted)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def differences(found, wanted):
    """The largest difference of each tensor, over the largest number of the wanted one; names must agree."""
    assert found.keys() == wanted.keys()
    return {
        name: float((found[name] - one).abs().max() / one.abs().max().clamp(min=1e-30)) for name, one in wanted.items()
    }
