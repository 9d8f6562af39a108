"""What split training costs in one process: what the wire loses and takes, a step, also sealed, beside the uncut one.

    python tools/split_costs.py              the figures of docs/split.md; a minute
    python tools/split_costs.py --quick      fewer repetitions

Times are of this process's CPU, the least of several: load of other processes does not enter.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from fedloom.base.tree import Layout, Tree
from fedloom.contracts.language import Encoded, LanguageModel
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.kernels import client_gradients
from fedloom.models.causal_lm import CausalLM
from fedloom.network.frames import Frame
from fedloom.network.handshake import Connection
from fedloom.network.steps import in_frames
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from fedloom.split.body import Adapters, Body, Middle
from fedloom.split.cut import Cut
from fedloom.split.ends import Ends, Said, Turn
from fedloom.split.messages import Message
from fedloom.split.wire import WIRES, WireName
from fedloom.tasks.sft import Sft
from fedloom.text.pretrained import quiet

CUT, TASK, CLIENT, CPU = Cut(1, 1), Sft(), "client", torch.device("cpu")


def pilot() -> tuple[LanguageModel, list[Encoded]]:
    """Return a model like the specification's pilot, before training, and 6 texts of 48 tokens."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 6}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), quiet():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        embedded_tokenizer().save_pretrained(folder)
        model = CausalLM(path=folder).build(seed=3, device=CPU)
    draw = torch.Generator().manual_seed(100)
    texts = [torch.randint(3, 60, (48,), generator=draw, dtype=torch.int32) for _ in range(6)]
    return model, [Encoded(text, torch.arange(48) >= 16) for text in texts]


def embedded_tokenizer():  # noqa: ANN201 - a tokenizer of whatever class
    """Return the tokenizer of the embedded model: the pilot needs one, and none of its texts."""
    return CausalLM().build(seed=0, device=CPU).tokenizer


def embedded() -> tuple[LanguageModel, list[Encoded]]:
    """Return the embedded model and the first texts of a client of the world."""
    ready = prepare(read_run({"model": {"name": "causal_lm"}}))
    return ready.model, list(next(iter(ready.shards.values())).items[:16])


def leaves_of(model: LanguageModel) -> Tree:
    """Return what is trained, with a client axis."""
    return {name: value[None].clone().requires_grad_() for name, value in model.trainable.items()}


class Halves:
    """A client and a server."""

    def __init__(self, model: LanguageModel, wire: WireName) -> None:
        self.model, self.wire, self.ends = model, WIRES[wire], Ends.of(model, CUT)
        self.middle = Middle.of(model, [CUT])
        self.body = Body(self.middle, {CLIENT: CUT}, self.wire, LocalSettings(), Adapters({CLIENT: ""}))

    def step(self, texts: Sequence[Encoded], leaves: Tree) -> tuple[Tree, Tensor]:
        """Return all gradients and the loss of one step, whose messages are kept as `said`."""
        turn = Turn(self.ends, TASK, leaves, [texts], Said((CLIENT,), 0, 0, self.wire), ())
        ahead = turn.ahead()
        body, _ = self.body.forward(ahead, {CLIENT: (0,)})
        gradients = turn.loss(body)
        back, _, _ = self.body.backward(gradients, {CLIENT: (0,)})
        self.said: list[Message] = [*ahead, *body, *gradients, *back]
        at_server = Layout.of_tree(self.middle.initial).tree(self.body.gathered.pop(CLIENT).sum_P[None])
        return turn.back(back) | at_server, turn.loss_2K[:, 0]


def lost(model: LanguageModel, texts: Sequence[Encoded], wire: WireName) -> tuple[float, float]:
    """Return the relative error of the whole gradient and the difference of the mean loss."""
    leaves = leaves_of(model)
    whole = client_gradients(model, TASK, leaves, [texts])
    found, loss = Halves(model, wire).step(texts, leaves)
    row_P = torch.cat([found[name].flatten() for name in leaves])
    wanted_P, wanted = whole.sum_KP[0], float(whole.total_K[0] / whole.weight_K[0])
    return float((row_P - wanted_P).norm() / wanted_P.norm()), abs(float(loss[0] / loss[1]) - wanted)


def frames_of(said: Sequence[Message]) -> list[list[bytes]]:
    """Return messages as they travel."""
    return [[frame.encoded() for frame in in_frames(message)] for message in said]


def sealed(ends: tuple[Connection, Connection], said: Sequence[Sequence[bytes]]) -> None:
    """Seal and open a step's messages, at both ends: two calls, each a message up and one down."""
    for up, down in zip(said[::2], said[1::2], strict=True):
        node = ends[0].next_call()
        server = ends[1].taken(int.from_bytes(node.opening[16:], "big"))
        here = [Frame({"kind": "call", "name": "Step"}).encoded(), *up]
        if list(server.opener.all(node.sealer.all(here))) != here:
            raise SystemExit("what was sealed does not come back")
        if list(node.opener.all(server.sealer.all(down))) != list(down):
            raise SystemExit("what was sealed does not come back")


def agreed() -> tuple[Connection, Connection]:
    """Return both ends of a connection."""
    return Connection("run", bytes(32), bytes(32)), Connection("run", bytes(32), bytes(32))


def least_ms(action: Callable[[], object], times: int) -> float:
    """Return the least CPU milliseconds of an action."""
    seconds: list[float] = []
    for _ in range(times):
        start_s = time.process_time()
        action()
        seconds.append(time.process_time() - start_s)
    return 1e3 * min(seconds)


def main(words: Sequence[str] | None = None) -> int:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    times = 3 if parser.parse_args(words).quick else 15
    torch.set_num_threads(1)
    models = {"pilot": pilot(), "embedded": embedded()}
    for name, (model, texts) in models.items():
        for wire in WIRES:
            gradient, loss = lost(model, texts, wire)
            print(f"{name}, {wire}: gradient {gradient:.1e}, mean loss {loss:.1e}")
    rows_ND = torch.randn(8192, 128, generator=torch.Generator().manual_seed(0))  # 4 MiB
    for wire in WIRES.values():
        there = least_ms(lambda wire=wire: wire.decode(wire.encode(rows_ND, ""), 8192, 128, ""), times)
        print(f"4 MiB there and back in {wire.name}: {there:.1f} ms")
    for name, (model, texts) in models.items():
        leaves = leaves_of(model)
        uncut = least_ms(lambda m=model, t=texts, p=leaves: client_gradients(m, TASK, p, [t]), times)
        halves = Halves(model, "bfloat16")
        split = least_ms(lambda h=halves, t=texts, p=leaves: h.step(t, p), times)
        tokens = sum(len(text.tokens_T) for text in texts)
        print(f"{name}, a step of {tokens} tokens: uncut {uncut:.1f} ms, split {split:.1f} ms, {split / uncut:.2f} x")
        said = frames_of(halves.said)
        seal, n_bytes = least_ms(lambda s=said: sealed(agreed(), s), times), sum(map(len, chain(*said)))
        print(f"{name}, sealing that step's {n_bytes:,} bytes at both ends: {seal:.2f} ms, {seal / split:.1%} of it")
    large = least_ms(lambda: sealed(agreed(), [[bytes(1 << 20)] * 4] * 4), times)
    print(f"16 MiB of messages, sealed and opened: {large:.1f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
