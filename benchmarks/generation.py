"""Entry h: answers per second: slots of our own against other ways of writing the same greedy tokens.

    python -m benchmarks.generation [--quick]

Prompts of unlike length, alone or behind 300 tokens that all share, as instruction and examples are; answers end after
log-normal lengths. Beside our slots, all with 16 rows at a time: `transformers`' cache in batches that ended rows leave
(how models other than plain Llamas answer here), `transformers.generate`, and CTranslate2 with the shared tokens as its
static prompt. The last two cannot end each row at a length of its own, so their batches hold answers of like length,
which nobody knows beforehand; what they write too many does not count. CTranslate2's products are oneDNN's, as ours
are: MKL's are slower here. Last the completer `ctranslate2` beside the library alone, on the same tokens.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import Figure, Settings, Target, alternate, entry, ratio
from benchmarks._shapes import EMBEDDED, TINY, Shape, base_folder
from fedloom.base import rng
from fedloom.base.plugin import lookup
from fedloom.completers.ctranslate2 import CTranslate2
from fedloom.contracts.evaluation import Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.contracts.language import LanguageModel
from fedloom.models.causal_lm import CausalLM
from fedloom.models.checkpoint import Checkpoint
from fedloom.models.decoder import decode
from fedloom.models.generation import prompt_tokens

__all__ = ["Task", "compare", "main"]

SMALL = Shape(name="20M", width=384, depth=8, inner=1024, heads=6, vocabulary=16_000)
LARGE = Shape(name="97M", width=768, depth=12, inner=2048, heads=12, vocabulary=16_000)
SLOTS, SHARED = 16, 300
Side = Callable[[], object]


@dataclass(frozen=True)
class Task:
    """What is to be written."""

    shared: list[int]
    prompts: list[list[int]]
    lengths: list[int]
    """New tokens of each answer."""

    @classmethod
    def of(cls, shape: Shape, n_prompts: int, n_shared: int, median: float) -> "Task":
        """Return random prompts of 10 to 60 tokens."""
        draw = rng.numpy_random("generation", shape.name, n_shared)
        words = partial(draw.integers, 5, 1280 if shape == EMBEDDED else shape.vocabulary)
        shared = words(size=n_shared).tolist()
        sizes = draw.integers(10, 60, size=n_prompts)
        lengths = (draw.lognormal(0.0, 0.6, size=n_prompts) * median).round().clip(1, 3 * median).astype(int)
        return cls(shared, [shared + words(size=size).tolist() for size in sizes], lengths.tolist())

    @property
    def batches(self) -> list[list[int]]:
        """Prompts by batches of answers of like length."""
        order = sorted(range(len(self.prompts)), key=lambda place: self.lengths[place])
        return [order[start : start + SLOTS] for start in range(0, len(order), SLOTS)]


def main(settings: Settings) -> list[Figure]:
    """Compare the ways for three sizes, with and without shared tokens."""
    if settings.device != "cpu":
        return []
    sizes = [(TINY, 8, 4.0)] if settings.quick else [(EMBEDDED, 96, 24.0), (SMALL, 32, 24.0), (LARGE, 32, 24.0)]
    with tempfile.TemporaryDirectory() as folder:
        found = [
            figure
            for shape, n_prompts, median in sizes
            for n_shared in (0, SHARED)
            for figure in compare(shape, Task.of(shape, n_prompts, n_shared, median), Path(folder), settings)
        ]
        return found + [_completed(shape, Path(folder), settings) for shape, _, _ in sizes if shape != EMBEDDED]


def compare(shape: Shape, task: Task, folder: Path, settings: Settings) -> list[Figure]:
    """Compare the ways to write what a task asks for."""
    source = base_folder(shape, folder)
    sides = _sides(source, task, folder, brief=shape == LARGE)
    seconds = alternate(sides, repeats=settings.repeats(2), settings=settings)
    n_tokens = sum(task.lengths)
    each = {name: one.scaled(1000 / n_tokens, "ms per token") for name, one in seconds.items()}
    kind = f"{shape.name}, {len(task.shared)} shared tokens"
    large = shape in (SMALL, LARGE)
    goals = {"transformers' cache in batches": 3.0 if task.shared else 1.6, "CTranslate2, float32": 0.6}
    work = {"tokens": n_tokens, "prompts": len(task.prompts), "rows": SLOTS}
    return [
        ratio(
            "h",
            f"{kind}: {name} over slots",
            ours=each["slots"],
            other=each[name],
            target=Target(">=", goals[name]) if large and name in goals else None,
            work=work,
        )
        for name in sides
        if name != "slots"
    ]


def _sides(source: Path, task: Task, folder: Path, *, brief: bool) -> dict[str, Side]:
    """Return the ways by name; `brief` leaves out those that no target is about."""

    def built(attention: str) -> LanguageModel:
        family: Any = CausalLM(path=str(source), dtype="float32", attention=attention)  # type: ignore[arg-type]
        return family.build(seed=0, device=torch.device("cpu"))

    ours, theirs = built("packed"), built("sdpa")
    _check_alike(ours, theirs, task)
    sides: dict[str, Side] = {
        "slots": partial(_decoded, ours, task),
        "transformers' cache in batches": partial(_decoded, theirs, task),
    }
    if not brief:
        module = Checkpoint("", source).module(dtype="float32").eval()
        sides["transformers.generate"] = partial(_generated, module, task)
    for kind in ("float32",) if brief else ("float32", "int8"):
        sides[f"CTranslate2, {kind}"] = partial(_translated, *_converted(source, folder, kind), task)
    return sides


def _decoded(model: LanguageModel, task: Task) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in task.prompts]
    order = sorted(range(len(task.prompts)), key=lambda place: len(task.prompts[place]))
    answers = decode(
        model,
        model.trainable,
        [task.prompts[place] for place in order],
        stop=(),
        max_new_tokens=max(task.lengths),
        slots=SLOTS,
        ended=lambda row, tokens: len(tokens) == task.lengths[order[row]],
    )
    for row, tokens in answers:
        found[order[row]] = tokens
    return found


def _check_alike(ours: LanguageModel, theirs: LanguageModel, task: Task) -> None:
    if _decoded(ours, task) != _decoded(theirs, task):
        raise RuntimeError("the two ways write other tokens: what they take cannot be compared")


def _completed(shape: Shape, folder: Path, settings: Settings) -> Figure:
    """Compare the completer `ctranslate2` with the library, handed the very tokens in the very batches."""
    source = base_folder(shape, folder)
    generator, vocabulary = _converted(source, folder, "float32")
    completer = CTranslate2(path=str(source), template=lookup(Template, "alpaca")(), batch=SLOTS)
    draw = rng.numpy_random("completer", shape.name)
    prompts = [(Turn("user", " ".join(map(str, draw.integers(100, size=n)))),) for n in draw.integers(10, 60, size=32)]
    tokenizer = Checkpoint.find(str(source)).tokenizer()
    tokens = sorted((prompt_tokens(completer.template, prompt, tokenizer) for prompt in prompts), key=len)
    asked = [[[vocabulary[t] for t in one] for one in tokens[at : at + SLOTS]] for at in range(0, len(tokens), SLOTS)]
    most = 8 if settings.quick else 48

    def alone() -> None:
        for batch in asked:
            generator.generate_batch(
                batch, max_length=most, min_length=most, sampling_topk=1, include_prompt_in_result=False
            )

    with completer.opened() as answer:
        sides = {
            "completer": lambda: [*answer(prompts, Sampling(max_new_tokens=most))],
            "library": alone,
        }
        seconds = alternate(sides, repeats=settings.repeats(3), settings=settings)
    each = {name: one.scaled(1000 / (most * len(prompts)), "ms per token") for name, one in seconds.items()}
    return ratio(
        "h",
        f"{shape.name}: CTranslate2 alone over completer ctranslate2",
        ours=each["completer"],
        other=each["library"],
        target=Target(">=", 0.95) if shape in (SMALL, LARGE) else None,
        work={"tokens": most * len(prompts), "prompts": len(prompts), "rows": SLOTS},
    )


def _generated(module: Any, task: Task) -> None:
    for batch in task.batches:
        longest = max(len(task.prompts[place]) for place in batch)
        padding = [longest - len(task.prompts[place]) for place in batch]
        tokens = [[0] * pad + task.prompts[place] for pad, place in zip(padding, batch, strict=True)]
        attention = [[0] * pad + [1] * (longest - pad) for pad in padding]
        with torch.no_grad():
            module.generate(
                torch.tensor(tokens),
                attention_mask=torch.tensor(attention),
                max_new_tokens=max(task.lengths[place] for place in batch),
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )


def _converted(source: Path, folder: Path, kind: str) -> tuple[Any, list[str]]:
    """Return CTranslate2's generator over the model, converted once, and its words."""
    os.environ["CT2_USE_MKL"] = "0"
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    target = folder / f"translated_{source.name}"
    if not target.exists():
        TransformersConverter(str(source)).convert(str(target))
        file = target / "config.json"  # a model without a begin token is converted, but not read again
        file.write_text(json.dumps({name: value or "" for name, value in json.loads(file.read_text()).items()}))
    vocabulary = json.loads((target / "vocabulary.json").read_text(encoding="utf-8"))
    return ctranslate2.Generator(str(target), compute_type=kind, inter_threads=1, intra_threads=1), vocabulary


def _translated(generator: Any, vocabulary: Sequence[str], task: Task) -> None:
    def words(tokens: Sequence[int]) -> list[str]:
        return [vocabulary[token] for token in tokens]

    for batch in task.batches:
        longest = max(task.lengths[place] for place in batch)
        generator.generate_batch(
            [words(task.prompts[place][len(task.shared) :]) for place in batch],
            static_prompt=words(task.shared) or None,
            max_length=longest,
            min_length=longest,
            beam_size=1,
            include_prompt_in_result=False,
            max_batch_size=SLOTS,
        )


if __name__ == "__main__":
    entry(main)
