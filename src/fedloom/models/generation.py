"""Answers to prompts as text: greedy, or drawn from what the model gives, with the tokens and texts that end them.

Written out rather than taken from `transformers`' `generate`, which greedy answers equal token by token (tested):
parameters reach the model as training has them, and a row's place is free as soon as it has ended. Deliberately
missing: beams.

Every prompt draws from a generator of its own, named by the seed and its tokens, one number for each new token: an
answer depends on prompt, sampling and seed alone. Who stands beside it enters through the rounding of the logits only,
as in greedy answers: a neighbour's length moves them in the last bits, which in float32 changes a token about once in
10^6, in bfloat16 more often. What was answered is therefore kept (`completers.answer_file`) and never asked again.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ModelError
from fedloom.base.tree import Tree
from fedloom.contracts.evaluation import Completion, Prompt, Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.contracts.language import LanguageModel, Piece, Tokenizer
from fedloom.models.decoder import Ended, Pick, decode
from fedloom.text.masks import pieces_to_tokens

__all__ = [
    "answer_text",
    "complete_tokens",
    "complete_with",
    "draw",
    "opening",
    "prompt_tokens",
    "stop_tokens",
    "template_tokens",
]

# ------------------------------------------------------------------------------------------------------------- drawing


def draw(logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Return tokens [B] drawn by numbers from [0, 1), in float64.

    The probabilities are softmax(logits / temperature); of them the nucleus is kept, the fewest most probable tokens
    that together have at least `top_p` (Holtzman et al., 2020, https://arxiv.org/abs/1904.09751, section 3.1). The
    token is where their running sum, in the order of the vocabulary, passes the drawn share of their total.
    """
    probabilities_BV = torch.softmax(logits_BV.double() / temperature, dim=-1)
    if top_p < 1:
        sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
        inside_BV = sorted_BV.cumsum(-1) - sorted_BV < top_p
        inside_BV[:, 0] = True
        probabilities_BV = probabilities_BV * torch.zeros_like(inside_BV).scatter(-1, order_BV, inside_BV)
    sums_BV = probabilities_BV.cumsum(-1)
    total_B1 = sums_BV[:, -1:]
    # Rounding must not lead to the total itself, behind the last token.
    wanted_B1 = torch.minimum(uniform_B[:, None] * total_B1, total_B1.nextafter(torch.zeros_like(total_B1)))
    return torch.searchsorted(sums_BV, wanted_B1, right=True)[:, 0]


def _picker(prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> Pick:
    generators: dict[int, torch.Generator] = {}

    def uniform(row: int) -> Tensor:
        if row not in generators:
            generators[row] = rng.generator("answer", seeds[row], " ".join(map(str, prompts[row])))
        return torch.rand((), generator=generators[row], dtype=torch.float64)

    def pick(logits_BV: Tensor, rows: Sequence[int]) -> Tensor:
        if not bool(logits_BV.amax(-1).isfinite().all()):
            raise ModelError("the model's logits are not finite, no answer can be told; use an earlier checkpoint.")
        if sampling.temperature == 0:
            return logits_BV.argmax(-1)
        uniform_B = torch.stack([uniform(row) for row in rows]).to(logits_BV.device)
        return draw(logits_BV, uniform_B, temperature=sampling.temperature, top_p=sampling.top_p)

    return pick


# ------------------------------------------------------------------------------------------------------ whole answers


def complete_tokens(
    model: LanguageModel,
    params: Tree,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop: Collection[int],
    batch: int,
    seeds: Sequence[int] = (),
) -> Iterator[tuple[int, Completion]]:
    """Give the place of each prompt of tokens and its answer, `batch` of them at a time, short prompts first.

    An answer ends with a token of `stop`, at the first of the texts `sampling.stop`, after `max_new_tokens`, or where
    the model's context is full. `n_tokens` counts what was generated, the end included; the text leaves the end out
    and keeps its white space. A prompt that leaves no room is refused for good.
    """
    room = model.context_size or max(map(len, prompts), default=0) + sampling.max_new_tokens
    stop = {*stop, *_special_stops(sampling, model.tokenizer)}
    for place, prompt in enumerate(prompts):
        if len(prompt) >= room:
            refused = f"{len(prompt)} tokens, where the model takes fewer than {room}"
            yield place, Completion("", 0, len(prompt), refused)
    fitting = [place for place, prompt in enumerate(prompts) if len(prompt) < room]
    fitting.sort(key=lambda place: len(prompts[place]))
    asked = [prompts[place] for place in fitting]
    answers = decode(
        model,
        params,
        asked,
        stop=stop,
        max_new_tokens=sampling.max_new_tokens,
        slots=batch,
        pick=_picker(asked, sampling, [seeds[place] if seeds else sampling.seed for place in fitting]),
        ended=_end([room - len(prompt) for prompt in asked], sampling, model.tokenizer),
    )
    for row, answer in answers:
        text = answer_text(answer, stop, sampling, model.tokenizer)
        yield fitting[row], Completion(text, len(answer), len(asked[row]))


def complete_with(
    model: LanguageModel,
    params: Tree,
    template: Template,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seeds: Sequence[int] = (),
    *,
    batch: int = 16,
) -> Iterator[tuple[int, Completion]]:
    """Give the place of each prompt and its answer without outer white space, as `complete_tokens` does.

    An empty prompt is answered by the question that begins a conversation.
    """
    stop = stop_tokens(template, model.tokenizer)
    places = [place for place, prompt in enumerate(prompts) if prompt]
    tokens = [prompt_tokens(template, prompts[place], model.tokenizer) for place in places]
    parts = [(places, tokens, sampling)]
    if opened := [place for place, prompt in enumerate(prompts) if not prompt]:
        begun, behind = opening(template, model.tokenizer)
        parts.append((opened, [begun] * len(opened), replace(sampling, stop=(*sampling.stop, behind))))
    for places, tokens, drawn in parts:
        own = [seeds[place] for place in places] if seeds else ()
        for at, answer in complete_tokens(model, params, tokens, drawn, stop=stop, batch=batch, seeds=own):
            yield places[at], replace(answer, text=answer.text.strip())


def prompt_tokens(template: Template, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[int]:
    """Return a conversation as tokens up to where the answer to its last question begins."""
    return template_tokens(template, turns, tokenizer)[0]


def opening(template: Template, tokenizer: Tokenizer) -> tuple[list[int], str]:
    """Return the tokens before a conversation's first question, and a text that ends any question: what follows it.

    Raises ModelError for a template that does not write a question as it stands.
    """
    probe = "0a1b2c"
    pieces = template.pieces((Turn("user", probe), Turn("assistant", probe)), tokenizer)
    asked = "".join(piece.text for piece in itertools.takewhile(lambda piece: not piece.supervised, pieces))
    before, found, behind = asked.partition(probe)
    special = next((text for text in tokenizer.all_special_tokens if behind.lstrip().startswith(text)), "")
    end = special or behind.rstrip()
    # A blank belongs to the word behind it: tokenizers read them as one, and a model has seen it alone nowhere.
    tokens, _ = pieces_to_tokens([Piece(before.rstrip(" "), supervised=False)], tokenizer, begin=template.begins)
    if not found or not end or not tokens:
        raise ModelError(
            f"template '{template.name}': nothing tells where a question begins and ends, so no model can write one; "
            "take another template."
        )
    return tokens, end


def template_tokens(template: Template, turns: Sequence[Turn], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Return a conversation as tokens, and for each whether it is supervised."""
    return pieces_to_tokens(template.pieces(turns, tokenizer), tokenizer, begin=template.begins)


def stop_tokens(template: Template, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that end an answer: the last one of any answer in this template, and the tokenizer's."""
    probe = (Turn("user", "0"), Turn("assistant", "0"))
    pieces = template.pieces(probe, tokenizer)
    last = max(index for index, piece in enumerate(pieces) if piece.supervised)
    end = pieces_to_tokens(pieces[: last + 1], tokenizer, begin=template.begins)[0][-1]
    eos = tokenizer.eos_token_id
    return frozenset((end, eos) if isinstance(eos, int) else (end,))


def _special_stops(sampling: Sampling, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of stop texts that are special tokens, which decoding leaves out."""
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return [special[text] for text in sampling.stop if text in special]


def _end(limits: Sequence[int], sampling: Sampling, tokenizer: Tokenizer) -> Ended:
    """Return what ends an answer after its limit of tokens, or behind a stop text."""
    # A token is a byte at least; only the last ones are decoded, or long answers would take quadratic time.
    window = max((2 * len(text.encode()) + 8 for text in sampling.stop), default=0)

    def ended(row: int, tokens: Sequence[int]) -> bool:
        if len(tokens) >= limits[row]:
            return True
        return bool(window) and _cut(_decode(tokens[-window:], tokenizer), sampling) is not None

    return ended


def answer_text(answer: Sequence[int], stop: Collection[int], sampling: Sampling, tokenizer: Tokenizer) -> str:
    """Return the text of new tokens: without the one of `stop` that ends them, up to the first stop text."""
    text = _decode(answer[:-1] if answer[-1] in stop else answer, tokenizer)
    cut = _cut(text, sampling)
    return text if cut is None else text[:cut]


def _cut(text: str, sampling: Sampling) -> int | None:
    """Return where the first stop text begins."""
    return min((place for wanted in sampling.stop if (place := text.find(wanted)) >= 0), default=None)


def _decode(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))
