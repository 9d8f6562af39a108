"""Pretraining of the embedded model: tokenizer, weights, scores and card, from the public part of the world alone.

On one thread the same steps and seed give the same bytes. The folder is written under a temporary name and renamed, so
it exists whole or not at all.
"""

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedloom.errors import RunError
from fedloom.examples import Chat, Document
from fedloom.rng import python_random, seed_of
from fedloom.world import World
from fedloom.world.names import ENDINGS, FIRSTS, every_name

__all__ = ["BATCH_TOKENS", "STEPS", "exact_match", "pretrain", "train_tokenizer"]

STEPS = 16_000
BATCH_TOKENS = 1_024
PEAK_RATE = 3e-3
PROMPT_WEIGHT = 0.1
"""Weight of a prompt token's loss beside 1 for an answer's: the prompt is mostly random, but it makes a language model."""
VOCABULARY = 1_280
_CHUNK = 20_000

PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _texts(examples: Iterable[Chat | Document]) -> Iterator[str]:
    for example in examples:
        yield example.text if isinstance(example, Document) else " ".join(turn.text for turn in example.turns)


def train_tokenizer(world: World, *, count: int = 20_000) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of the public text.

    Names are cut between first part and ending while it learns, so that no whole name becomes a token and a new name
    is made of known tokens.
    """
    cut = {name: f"{first}|{name[len(first) :]}" for name in every_name() for first in FIRSTS if name.startswith(first)}
    words = (" " + cut.get(word, word) for text in _texts(world.pretraining(count)) for word in text.split())
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
            pieces.append((index, example.text + END, PROMPT_WEIGHT * 3))
            continue
        for turn in example.turns:
            if turn.role == "assistant":
                pieces += [(index, ASSISTANT, PROMPT_WEIGHT), (index, turn.text + END, 1.0)]
            else:
                pieces.append((index, f"<|{turn.role}|>{turn.text}{END}", PROMPT_WEIGHT))
    encoded = tokenizer([text for _, text, _ in pieces], add_special_tokens=False)["input_ids"]
    out = [_Sequence([], []) for _ in examples]
    for (index, _, weight), ids in zip(pieces, encoded, strict=True):
        out[index].ids.extend(ids)
        out[index].weights.extend([weight] * len(ids))
    return out


def _batches(world: World, tokenizer: PreTrainedTokenizerFast, pad: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches of about BATCH_TOKENS tokens, each of examples of nearly one length."""
    for chunk in itertools.count():
        examples = list(world.pretraining(_CHUNK, start=chunk * _CHUNK))
        sequences = sorted(_sequences(tokenizer, examples), key=lambda sequence: len(sequence.ids))
        batches: list[list[_Sequence]] = [[]]
        for sequence in sequences:
            if len(sequence.ids) * (len(batches[-1]) + 1) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(sequence)
        python_random("pretrain", world.seed, chunk).shuffle(batches)
        for batch in batches:
            width = max(len(sequence.ids) for sequence in batch)
            ids = [sequence.ids + [pad] * (width - len(sequence.ids)) for sequence in batch]
            weights = [sequence.weights + [0.0] * (width - len(sequence.weights)) for sequence in batch]
            yield torch.tensor(ids), torch.tensor(weights)


def _model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed_of(seed, "pretrain", "weights")).get_state())
        return LlamaForCausalLM(config)


def _loss(model: LlamaForCausalLM, ids_BT: Tensor, weights_BT: Tensor) -> Tensor:
    # Padding stands on the right, where causal attention cannot see it: no mask is needed.
    logits_BTV = model(input_ids=ids_BT).logits[:, :-1]
    losses = functional.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
    weights = weights_BT[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def _rate(step: int, steps: int) -> float:
    """Linear warm-up over at most 300 steps, then cosine to zero."""
    warm_up = min(300, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


def exact_match(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, chats: Sequence[Chat]) -> list[bool]:
    """Return for each chat whether the greedy answer to its prompt is the reference, word for word."""
    said: dict[int, str] = {}
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.text} for turn in chat.prompt],
            add_generation_prompt=True,
            tokenize=False,
        )
        for chat in chats
    ]
    order = sorted(range(len(chats)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), 64):
        indices = order[start : start + 64]
        batch = tokenizer([prompts[i] for i in indices], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=24,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        answers = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        said.update(zip(indices, answers, strict=True))
    return [said[index].strip() == chat.answer for index, chat in enumerate(chats)]
