"""Models and data of every size, made on the spot in a folder: random weights, random words, nothing downloaded.

Tokens are whole words, so lengths are exact and every library that reads the folder finds the same tokens.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from fedloom.base import rng
from fedloom.models.checkpoint import Checkpoint
from fedloom.world import World

__all__ = [
    "ALL_LINEAR",
    "EMBEDDED",
    "LARGE",
    "MEDIUM",
    "SHAPES",
    "SMOLLM2",
    "TINY",
    "Lengths",
    "Shape",
    "base_folder",
    "write_data",
]

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Lengths:
    """How long prompts and answers are, in words: uniform, and log-normal as instruction data are."""

    prompt: tuple[int, int] = (12, 40)
    answer_median: float = 24.0
    answer_sigma: float = 0.6
    longest: int = 128
    """Most words of prompt and answer together."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model and what a round of federated tuning of it is."""

    name: str
    width: int = 0
    """0 takes the model that ships with fedloom, and its world as data."""
    depth: int = 0
    inner: int = 0
    heads: int = 0
    groups: int = 0
    """Heads of keys and values; 0 takes as many as there are heads."""
    vocabulary: int = 32_000
    dtype: Literal["float32", "bfloat16"] = "float32"
    rank: int = 8
    targets: tuple[str, ...] = ALL_LINEAR
    clients: int = 8
    steps: int = 4
    batch: int = 16
    epochs: int = 1
    """Epochs of a round, by which its steps divide: whole ones, so that all sides train on the same examples."""
    lengths: Lengths = field(default_factory=Lengths)

    @property
    def examples(self) -> int:
        """Examples of a client."""
        return self.steps * self.batch // self.epochs


# The published recipe adapts the query and value projections with rank 32.
LARGE = Shape(
    name="large", width=640, depth=10, inner=1728, heads=10, rank=32, targets=("q_proj", "v_proj"), clients=2, steps=2,
    batch=4,
)  # fmt: skip
EMBEDDED = Shape(name="small")
MEDIUM = Shape(
    name="6.9M", width=256, depth=6, inner=688, heads=8, vocabulary=8_192, clients=4, steps=2, batch=8,
)  # fmt: skip
TINY = Shape(name="tiny", width=64, depth=2, inner=128, heads=4, vocabulary=256, clients=2, steps=1, batch=2)
_PUBLISHED = {"rank": 32, "targets": ("q_proj", "v_proj"), "clients": 4, "steps": 4, "batch": 16}
_LONG = Lengths(prompt=(40, 160), answer_median=130.0, longest=512)
SMOLLM2 = Shape(
    name="smollm2", width=576, depth=30, inner=1536, heads=9, groups=3, vocabulary=49_152, rank=16,
    targets=("q_proj", "v_proj"), clients=2, steps=1, batch=4, lengths=_LONG,
)  # fmt: skip
"""SmolLM2-135M with random weights; of `bfloat16` the base is stored so, as it is published."""
SHAPES = {
    "cpu": (EMBEDDED, LARGE),
    "cuda": (
        EMBEDDED,
        Shape(name="0.1B", width=768, depth=12, inner=2048, heads=12, lengths=_LONG, **_PUBLISHED),
        Shape(name="1B", width=2048, depth=16, inner=5632, heads=16, lengths=_LONG, **_PUBLISHED),
        Shape(
            name="7B", width=4096, depth=32, inner=11008, heads=32, dtype="bfloat16", lengths=_LONG,
            **{**_PUBLISHED, "clients": 2, "steps": 2},
        ),
    ),
}  # fmt: skip


def base_folder(shape: Shape, folder: Path, *, device: str = "cpu") -> Path:
    """Return the folder of the shape's model and tokenizer; a random one is written below `folder` first."""
    if not shape.width:
        return Checkpoint.find("").folder
    target = folder / f"model_{shape.name}"
    if target.exists():
        return target
    config = _config(shape)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    model.save_pretrained(target)
    _tokenizer(shape).save_pretrained(target)
    return target


def _config(shape: Shape) -> AutoConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups or shape.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        dtype=shape.dtype,
    )


def _tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    words = [*_SPECIAL, *(f"w{number}" for number in range(len(_SPECIAL), shape.vocabulary))]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="w4"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in _SPECIAL])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def write_data(shape: Shape, folder: Path) -> Path:
    """Return a JSON Lines file of instructions and outputs with the same number of examples for every owner."""
    path = folder / f"data_{shape.name}.jsonl"
    count = shape.clients * shape.examples
    pairs = _random_pairs(shape, count) if shape.width else _world_pairs(count)
    lines = [
        json.dumps({"instruction": prompt, "output": answer, "owner": f"client{number // shape.examples:03d}"}) + "\n"
        for number, (prompt, answer) in enumerate(pairs)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _world_pairs(count: int) -> list[tuple[str, str]]:
    chats = [chat for client in World(0).clients(2 + count // 25) for chat in client.train]
    distinct = {chat.prompt[-1].text: chat.reference for chat in chats if len(chat.turns) == 2}
    return list(distinct.items())[:count]


def _random_pairs(shape: Shape, count: int) -> list[tuple[str, str]]:
    draw = rng.numpy_random("benchmark data", shape.name)
    asked = draw.integers(*shape.lengths.prompt, endpoint=True, size=count)
    told = draw.lognormal(0.0, shape.lengths.answer_sigma, size=count) * shape.lengths.answer_median
    longest = shape.lengths.longest - asked
    told = told.round().clip(1, longest).astype(int)

    def text(n_words: int) -> str:
        return " ".join(f"w{number}" for number in draw.integers(len(_SPECIAL), shape.vocabulary, size=n_words))

    return [(text(int(a)), text(int(t))) for a, t in zip(asked, told, strict=True)]
