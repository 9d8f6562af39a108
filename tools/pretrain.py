"""Pretraining of the embedded model: tokenizer, weights, scores and card, from the public part of the world alone.

    python tools/pretrain.py --out DIR             half an hour on one core

On one thread the same steps and seed give the same bytes. The folder is written under a temporary name and renamed, so
it exists whole or not at all.
"""

import argparse
import hashlib
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedloom.base.errors import FedloomError, RunError
from fedloom.base.files import refuse_filled
from fedloom.base.rng import generator, python_random
from fedloom.contracts.examples import Chat, Document
from fedloom.world import World
from fedloom.world.domains import FINISHING_WEIGHTS, WEIGHTS
from fedloom.world.names import ENDINGS, FIRSTS, every_name

__all__ = ["BATCH_TOKENS", "STEPS", "exact_match", "pretrain", "public_scores", "train_tokenizer"]

STEPS = 16_000
BATCH_TOKENS = 1_024
PROMPT_WEIGHT = 0.2
"""Weight of the loss of a prompt's token beside 1 for an answer's: low, as a prompt is mostly random."""
PROMPT_EVERY = 4
"""Prompts are learnt from in one of so many examples: the other ones cost no output layer."""
VOCABULARY = 1_280
_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class _Phase:
    """One part of the pretraining: warm-up, then cosine to zero, with its own share of tasks."""

    share: float
    """Share of all steps."""
    peak_rate: float
    weights: Mapping[str, float]


_PHASES = (
    _Phase(0.75, 3e-3, WEIGHTS),
    _Phase(0.25, 1.5e-3, FINISHING_WEIGHTS),
)

PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
_PAD_ID, _END_ID = 0, 1  # the trainer numbers special tokens in the order given
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _texts(examples: Iterable[Chat | Document]) -> Iterator[str]:
    for example in examples:
        yield example.text if isinstance(example, Document) else " ".join(turn.text for turn in example.turns)


def train_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of the public text.

    Names are cut between first part and ending while it learns, so that no whole name becomes a token and a new name
    is made of known tokens.
    """
    cut = {name: f"{first}|{name[len(first) :]}" for name in every_name() for first in FIRSTS if name.startswith(first)}
    words = (" " + cut.get(word, word) for text in _texts(world.pretraining(_CHUNK)) for word in text.split())
    tokenizer = Tokenizer(models.BPE())
    cutting = [pre_tokenizers.Split("|", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cutting)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain(words, _pieces()), trainer)
    # A prefix space for every message makes the first word of an answer the token that it is elsewhere.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _pieces() -> Iterator[str]:
    """Yield what must become one token even if the text has it seldom: parts of names, numbers."""
    yield from (f" {first}|{end}" for first in FIRSTS for ends in ENDINGS.values() for end in ends)
    yield from (f" {number}" for number in range(100) for _ in range(30))


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Token numbers of one example and the weight of each one's loss."""

    ids: list[int]
    weights: list[float]


def _sequences(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Chat | Document]) -> list[_Sequence]:
    """Return the examples as tokens; assistant turns and their end weigh 1, all else PROMPT_WEIGHT."""
    pieces: list[tuple[int, str, float]] = []
    for index, example in enumerate(examples):
        if isinstance(example, Document):
            pieces.append((index, example.text + END, 3 * PROMPT_WEIGHT))
            continue
        weight = PROMPT_WEIGHT if index % PROMPT_EVERY == 0 else 0.0
        for turn in example.turns:
            if turn.role == "assistant":
                pieces += [(index, ASSISTANT, weight), (index, turn.text + END, 1.0)]
            else:
                pieces.append((index, f"<|{turn.role}|>{turn.text}{END}", weight))
    encoded = tokenizer([text for _, text, _ in pieces], add_special_tokens=False)["input_ids"]
    out = [_Sequence([], []) for _ in examples]
    for (index, _, weight), ids in zip(pieces, encoded, strict=True):
        out[index].ids.extend(ids)
        out[index].weights.extend([weight] * len(ids))
    return out


def _batches(world: World, tokenizer: PreTrainedTokenizerFast, phase: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches of about BATCH_TOKENS tokens, each of examples of nearly one length."""
    for chunk in itertools.count(phase * 1000):
        examples = list(world.pretraining(_CHUNK, start=chunk * _CHUNK, weights=_PHASES[phase].weights))
        sequences = sorted(_sequences(tokenizer, examples), key=lambda sequence: len(sequence.ids))
        batches: list[list[_Sequence]] = [[]]
        for sequence in sequences:
            if len(sequence.ids) * (len(batches[-1]) + 1) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(sequence)
        python_random("pretrain", world.seed, chunk).shuffle(batches)
        for batch in batches:
            width = max(len(sequence.ids) for sequence in batch)
            ids = [sequence.ids + [_PAD_ID] * (width - len(sequence.ids)) for sequence in batch]
            weights = [sequence.weights + [0.0] * (width - len(sequence.weights)) for sequence in batch]
            yield torch.tensor(ids), torch.tensor(weights)


def _model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=_END_ID,
        pad_token_id=_PAD_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(seed, "pretrain", "weights").get_state())
        return LlamaForCausalLM(config)


def _loss(model: LlamaForCausalLM, ids_BT: Tensor, weights_BT: Tensor) -> Tensor:
    # Padding stands on the right, where causal attention cannot see it: no mask is needed.
    hidden_BTD = model.model(input_ids=ids_BT).last_hidden_state
    weights = weights_BT[:, 1:].flatten()
    learnt = weights.nonzero().squeeze(1)
    # Only tokens that are learnt from pass the output layer; index_select has a fast backward pass, indexing has not.
    logits_NV = model.lm_head(hidden_BTD[:, :-1].flatten(0, 1).index_select(0, learnt))
    losses_N = functional.cross_entropy(logits_NV, ids_BT[:, 1:].flatten()[learnt], reduction="none")
    return (losses_N * weights[learnt]).sum() / weights[learnt].sum()


def _rate(step: int, steps: int) -> float:
    """Linear warm-up over at most 300 steps, then cosine to zero."""
    warm_up = min(300, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


def _prompt(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> str:
    messages = [{"role": turn.role, "content": turn.text} for turn in chat.prompt]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def exact_match(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, chats: Sequence[Chat]) -> list[bool]:
    """Return for each chat whether the greedy answer to its prompt is the reference, word for word."""
    said: dict[int, str] = {}
    decoder: Any = model  # the typed signature of `generate` is narrower than what it accepts
    prompts = [_prompt(tokenizer, chat) for chat in chats]
    order = sorted(range(len(chats)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), 64):
        indices = order[start : start + 64]
        batch = tokenizer([prompts[i] for i in indices], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = decoder.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=24,
                do_sample=False,
                pad_token_id=_PAD_ID,
            )
        answers = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        said.update(zip(indices, answers, strict=True))
    return [said[index].strip() == chat.reference for index, chat in enumerate(chats)]


def _train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    *,
    phase: int,
    steps: int,
    report: Callable[[str], None],
) -> int:
    """Train `model` in place for `steps` steps of AdamW and return the number of tokens it has read."""
    peak_rate = _PHASES[phase].peak_rate
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    tokens, recent, begin = 0, 0.0, time.monotonic()
    for step, (ids_BT, weights_BT) in zip(range(steps), _batches(world, tokenizer, phase), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = peak_rate * _rate(step, steps)
        loss = _loss(model, ids_BT, weights_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        tokens += ids_BT.numel()
        recent += (loss.item() - recent) / min(step + 1, 100)
        if (step + 1) % 100 == 0:
            speed = tokens / (time.monotonic() - begin)
            report(f"phase {phase + 1} step {step + 1}/{steps} loss {recent:.4f} {speed:.0f} tokens/s")
    return tokens


def public_scores(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World, *, per_task: int = 100
) -> dict[str, float]:
    """Return exact match on held-out wordings by task; `entities:` tasks ask about names never seen in training."""
    scores: dict[str, float] = {}
    for prefix, chats in (
        ("", world.test("public", per_task=per_task)),
        ("entities:", world.test("entities", per_task=per_task)),
    ):
        right = exact_match(model, tokenizer, chats)
        by_task: dict[str, list[bool]] = {}
        for chat, is_right in zip(chats, right, strict=True):
            by_task.setdefault(prefix + chat.tags["asked_as"], []).append(is_right)
        scores |= {task: round(sum(flags) / len(flags), 4) for task, flags in by_task.items()}
    return scores


def _save(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, card: dict[str, Any]) -> None:
    model.generation_config.update(do_sample=False, eos_token_id=_END_ID, pad_token_id=_PAD_ID, max_new_tokens=32)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.backend_tokenizer.no_padding()  # scoring has switched it on, and the file would keep it
    tokenizer.save_pretrained(folder)
    card["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(card), encoding="utf-8")


def _readme(card: dict[str, Any]) -> str:
    rows = "\n".join(f"| {task} | {score:.3f} |" for task, score in card["scores"].items())
    facts = "\n".join(f"- {key}: {value}" for key, value in card.items() if key != "scores")
    return f"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# The embedded model of fedloom

A tiny language model of the controlled world (`fedloom.world`), for tests and demonstrations. It has read the public
part of that world only: no private fact, no held-out wording, no text from outside. It knows nothing of the real world.

{facts}

Exact match of greedy answers in held-out wordings:

| task | score |
|---|---|
{rows}
"""


def pretrain(
    out: Path, *, steps: int = STEPS, seed: int = 0, per_task: int = 100, report: Callable[[str], Any] | None = None
) -> dict[str, Any]:
    """Train the embedded model, write it to the new folder `out` and return its card.

    The card's scores are measured on `per_task` questions of each task.
    """
    refuse_filled(out)
    if steps < 1:
        raise RunError(f"pretraining of {steps} steps, allowed is at least 1: give a larger --steps.")
    tell = report or _silent
    world = World(seed)
    begin = time.monotonic()
    with _one_thread():
        tokenizer = train_tokenizer(world)
        model, tokens = _model(tokenizer, seed), 0
        for phase, share in enumerate(each.share for each in _PHASES):
            tokens += _train(model, tokenizer, world, phase=phase, steps=round(share * steps), report=tell)
        scores = public_scores(model.eval(), tokenizer, world, per_task=per_task)
    card: dict[str, Any] = {
        "command": f"python tools/pretrain.py --out {out.name} --steps {steps} --seed {seed}",
        "licence": "Apache-2.0",
        "data": f"fedloom.world.World({seed}).pretraining, public facts and training wordings only",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "seed": seed,
        "tokens": tokens,
        "versions": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
        "threads": 1,
        "questions_per_task": per_task,
        "scores": scores,
    }
    tell(f"trained and scored in {time.monotonic() - begin:.0f} s")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        _save(folder, model, tokenizer, card)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    return card


@contextmanager
def _one_thread() -> Generator[None]:
    """Compute on one thread: with more, sums are split otherwise and the last bits differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _silent(line: str) -> None:
    """Report nothing."""


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order")
    told = parser.parse_args()
    try:
        pretrain(told.out, steps=told.steps, seed=told.seed, report=lambda line: sys.stdout.write(f"{line}\n"))
    except FedloomError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
