"""A chain of stages by hand: documents become pairs at each client, pairs train a model, the server shortens its step.

    python examples/chain_by_hand.py          pip install fedloom[text]

What `prepare`, the rounds and `refine` of a run file do, called one after another; nothing is kept on the way.
"""

import sys
import tempfile
from pathlib import Path

import torch

from fedloom.base.plugin import lookup
from fedloom.completers.analogical import Analogical
from fedloom.contracts.examples import Document
from fedloom.contracts.stages import Owner, Preparation
from fedloom.models.causal_lm import CausalLM
from fedloom.tasks.sft import Sft

POOL = (
    '{"document": "The baker Oren sells bread in Kolm.", "instruction": "What does Oren sell?", "response": "bread"}\n'
    '{"document": "The nurse Ilka works in Tarn.", "instruction": "Where does Ilka work?", "response": "Tarn"}\n'
)
NOTES = {
    "anna": ["The baker Mira sells figs in Lodz.", "The nurse Odo works in Bree."],
    "ben": ["The baker Pim sells salt in Orsk.", "The nurse Ulla works in Dorn."],
}


def chain(folder: Path) -> dict[str, torch.Tensor]:
    """Return the adapter after preparing, one round of one step each, and a refinement."""
    (folder / "pool.jsonl").write_text(POOL)
    pairs = lookup(Preparation, "pairs")(pool=str(folder / "pool.jsonl"), completer=Analogical())
    made = {name: pairs([Document(text) for text in notes], Owner(name, 0, None)) for name, notes in NOTES.items()}
    for name, one in made.items():
        for chat in one.examples:
            sys.stdout.write(f"{name}: {chat.prompt[-1].text} -> {chat.reference}\n")
    model, task = CausalLM().build(seed=0, device=torch.device("cpu")), Sft()
    mean = {name: torch.zeros_like(value) for name, value in model.trainable.items()}
    for one in made.values():
        own = {name: value.clone().requires_grad_() for name, value in model.trainable.items()}
        batch = task.collate([[task.encode(chat, model) for chat in one.examples]], model)
        model.context.batch = batch
        loss = task.loss(model, own, batch).total_B.sum()
        for (name, value), slope in zip(own.items(), torch.autograd.grad(loss, [*own.values()]), strict=True):
            mean[name] += (value.detach() - 0.01 * slope) / len(made)
    model.context.batch = None
    return {name: model.trainable[name] + 0.5 * (value - model.trainable[name]) for name, value in mean.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.stdout.write(f"{len(chain(Path(place)))} tensors\n")
