"""How a model can be trained exactly: found by one comparison with its own forward pass, before it is loaded.

What an architecture does with several examples in one row cannot be told from its name. So a small twin of it
(`_twin`), with random weights and adapters that differ by client, trains once in every way that is wanted, until one is
right: `packed`, then `sdpa` and `eager` over the whole row, then an example at a time. Right is

- every loss, and the gradient of every trained tensor, as transformers' own forward gives them for each example alone
  (`_truth`), at lengths beyond every window and chunk;
- a gradient of exactly zero between two examples: what one is made of does not reach the other's losses at all.

The same twin tells where positions end, up to which length examples may stand in one row, whether the output head may
be worked off in pieces, and which linear layers text passes. An answer is kept for the process.
"""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from fedloom.base.errors import ModelError
from fedloom.base.tree import Tree, flatten, stack
from fedloom.contracts.language import LanguageModel, PackedBatch, Passage, Tokenizer
from fedloom.contracts.model import ForwardContext
from fedloom.models import attention as packed
from fedloom.models._truth import ALPHA, RANK, Embedding, Truth, example
from fedloom.models._twin import ENDS, TROUBLE, twins
from fedloom.models.frozen import FrozenLinear
from fedloom.models.llama import Llama
from fedloom.models.lora import install, pattern, targeted_layers, usual_layers
from fedloom.models.packing import pack
from fedloom.models.peft_files import lost_in_peft
from fedloom.text.pretrained import one_line, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Exact", "examine", "keeps_logits", "plain_head"]

_TOLERANCE = 2e-4  # of losses and of gradients; what a lost mask changes is a hundred times as much
_WAYS: dict[str, tuple[tuple[str, Passage], ...]] = {
    "packed": (("packed", "packed"), ("sdpa", "row"), ("eager", "row"), ("sdpa", "alone"), ("eager", "alone")),
    "sdpa": (("sdpa", "row"), ("sdpa", "alone"), ("eager", "alone")),
    "eager": (("eager", "row"), ("eager", "alone")),
}
_WORDS = {"packed": "", "row": " over the whole row", "alone": ", one example at a time (slow)"}
_CPU = torch.device("cpu")
_Way = tuple[str, Passage, LanguageModel]


@dataclass(frozen=True)
class Exact:
    """How an architecture trains exactly."""

    attention: str
    passage: Passage
    targets: frozenset[str] | None = None
    """Patterns of the layers that may have an adapter by default; None where that was not found out."""
    pieces: bool = False
    """Whether losses from the last states and the output head are those of the whole logits."""
    exact_up_to: int | None = None
    positions: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wish:
    """What is to be trained, and how if that is exact."""

    name: str
    """The architecture, as messages call it."""
    attention: str
    targets: tuple[str, ...]
    """Layers with an adapter; empty for the usual ones."""
    whole: bool
    """Whether all weights are trained and there are no adapters."""


_known: dict[str, Exact] = {}


def examine(config: "PreTrainedConfig", wish: Wish, *, weight_bytes: int) -> Exact:
    """Return how a model of this configuration trains exactly, the wanted attention first.

    Raises ModelError, with what stands in the way, where even an example at a time is not what the model itself
    computes, or where it is no model that predicts the next token.
    """
    key = json.dumps([config.to_json_string(use_diff=False), repr(wish)])
    if key not in _known:
        with quiet():
            _known[key] = _examined(config, wish, weight_bytes)
    return _known[key]


def _examined(config: "PreTrainedConfig", wish: Wish, weight_bytes: int) -> Exact:
    packed.register()
    why = "its sizes depend on one another"
    for twin in twins(config, weight_bytes=weight_bytes):
        try:
            return _settled(Truth.of(twin), wish)
        except ModelError as error:
            raise ModelError(f"{wish.name}: {str(error).rstrip('.')}.") from error
        except TROUBLE as error:
            why = one_line(error)
    # One at a time is the model's own forward, whatever it is.
    note = f"{wish.name}: no small copy can be made to compare with ({why}); one example at a time is trained (slow)."
    own = "eager" if wish.attention == "packed" else wish.attention
    ends = [value for name, value in vars(config.get_text_config()).items() if name in ENDS]
    return Exact(own, "alone", positions=min(ends, default=None), notes=(note,))


def _settled(truth: Truth, wish: Wish) -> Exact:
    """Return the first way that is exact; adapters by default leave out layers of which that cannot be said."""
    targets, notes = () if wish.whole else _targets(truth, wish), list[str]()
    found, faults = _first_exact(truth, wish, targets)
    if found is None and targets:
        tried = {kind: _tried(truth, wish, kind, truth.attention, "alone") for kind in _by_pattern(targets)}
        kept = tuple(name for kind, found in tried.items() if isinstance(found, LanguageModel) for name in kind)
        odd = sorted({pattern(name) for name in targets} - {pattern(name) for name in kept})
        if wish.targets and odd:
            raise ModelError(f"lora_targets: an adapter on '{odd[0]}' is not what its layer computes; leave it out")
        if kept and odd:
            notes.append(f"{wish.name}: no adapters by default on {', '.join(odd)}: not what a linear layer computes.")
            targets = kept
            found, faults = _first_exact(truth, wish, targets)
    if found is None:
        raise ModelError(f"cannot be trained exactly in any way: {'; '.join(faults)}")
    attention, passage, model = found
    if (attention, passage) != _WAYS[_asked(wish)][0]:
        way = f"{attention}{_WORDS[passage]}"
        notes.append(f"{wish.name}: attention '{wish.attention}' is not exact ({faults[0]}); used is {way}.")
    attention = wish.attention if wish.attention not in _WAYS else attention
    patterns = frozenset(pattern(name) for name in targets)
    exact = Exact(attention, passage, targets=patterns, notes=tuple(notes))
    return _with_ends(truth, model, exact)


def _asked(wish: Wish) -> str:
    # Flash attention cannot run here; it is told of examples by their positions, as `sdpa` is.
    return wish.attention if wish.attention in _WAYS else "sdpa"


def _targets(truth: Truth, wish: Wish) -> tuple[str, ...]:
    if wish.targets:
        return tuple(targeted_layers(truth.module, wish.targets))
    usual = [name for name in usual_layers(truth.module) if pattern(name) in truth.used]
    left_out = lost_in_peft(truth.module.config.model_type, usual)
    return tuple(name for name in usual if name not in left_out) or tuple(usual)


def _by_pattern(names: Sequence[str]) -> list[tuple[str, ...]]:
    kinds = dict.fromkeys(pattern(name) for name in names)
    return [tuple(name for name in names if pattern(name) == kind) for kind in kinds]


def _first_exact(truth: Truth, wish: Wish, targets: tuple[str, ...]) -> tuple[_Way | None, list[str]]:
    """Return the first way that is exact, if any, and what stands against those before it."""
    faults: list[str] = []
    for attention, passage in _WAYS[_asked(wish)]:
        found = _tried(truth, wish, targets, attention, passage)
        if isinstance(found, LanguageModel):
            return (attention, passage, found), faults
        faults.append(f"{attention}{_WORDS[passage]}: {found}")
    return None, faults


def _tried(truth: Truth, wish: Wish, targets: tuple[str, ...], attention: str, passage: Passage) -> LanguageModel | str:
    """Return the twin as a model that trains in one way, or what is wrong with that."""
    try:
        model = _assembled(truth, wish, targets, attention, passage)
        return _unequal(truth, model) or ("" if passage == "alone" else _leak(truth, model)) or model
    except ModelError as error:
        return str(error).rstrip(".")
    except TROUBLE as error:
        return one_line(error)


def _assembled(truth: Truth, wish: Wish, targets: tuple[str, ...], attention: str, passage: Passage) -> LanguageModel:
    """Return the twin as a model that trains in one way."""
    module, context = truth.twin.build(attention), ForwardContext()
    if not wish.whole:
        install(module, targets=targets, rank=RANK, alpha=ALPHA, dropout=0.0, seed=0, context=context)
    trainable = truth.whole(0) if wish.whole else truth.factors(targets, 0)
    return LanguageModel(
        module=module.eval().requires_grad_(False),
        trainable=trainable,
        tokenizer=cast("Tokenizer", None),  # nothing is written or read
        context=context,
        base_id="",
        stackable=not wish.whole,
        passage=passage,
        keeps=keeps_logits(module),
        head=plain_head(module, trainable),
        body_prefix=f"{module.base_model_prefix}.",
    )


def _clients(truth: Truth, model: LanguageModel) -> list[Tree]:
    names = [name.removesuffix(".lora_A") for name in model.trainable if name.endswith(".lora_A")]
    return [truth.factors(names, client) if model.stackable else truth.whole(client) for client in (0, 1)]


def _unequal(truth: Truth, model: LanguageModel) -> str:
    """Return how far losses or gradients are from the truth; nothing where they agree."""
    clients = _clients(truth, model)
    pairs = list(zip(clients, truth.parts, strict=True))
    expected = [truth.right(params, part) for params, part in pairs]
    if model.stackable:
        found = [_trained(model, stack(clients), pack(truth.parts, _CPU))]
        expected = [(torch.cat([losses for losses, _ in expected]), stack([slopes for _, slopes in expected]))]
    else:
        found = [_trained(model, params, pack([part], _CPU)) for params, part in pairs]
    for (losses_S, slopes), (right_S, right) in zip(found, expected, strict=True):
        gap = float((losses_S - right_S).abs().max() / right_S.mean())
        if not gap <= _TOLERANCE:
            return f"losses differ from the model's own forward pass by {gap:.1g} of a mean loss"
        gap = float((flatten(slopes) - flatten(right)).norm() / flatten(right).norm())
        if not gap <= _TOLERANCE:
            return f"gradients differ from those of the model's own forward pass by {gap:.1g} of their norm"
    return ""


def _trained(model: LanguageModel, params: Tree, batch: PackedBatch) -> tuple[Tensor, Tree]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
    model.context.batch = batch
    losses_S = model.token_losses(leaves, batch)
    slopes = torch.autograd.grad(losses_S.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return losses_S.detach(), dict(zip(leaves, slopes, strict=True))


def _leak(truth: Truth, model: LanguageModel) -> str:
    """Return what reaches one example from another; nothing if all gradients between them are exactly zero."""
    clients = _clients(truth, model)
    parts = truth.parts if model.stackable else [[item for part in truth.parts for item in part]]
    batch = pack(parts, _CPU)
    model.context.batch = batch
    params = stack(clients) if model.stackable else clients[0]
    with Embedding(cast("PreTrainedModel", model.module), params) as watched:
        losses_S = model.token_losses(params, batch)
    if watched.leaf is None or watched.leaf.shape[-2] != len(batch.tokens_N):
        return "what reaches an example from another cannot be told"
    for place, (start, length) in enumerate(batch.lines):
        (slope,) = torch.autograd.grad(losses_S[batch.example_S == place].sum(), watched.leaf, retain_graph=True)
        by_token_N = slope.abs().sum(-1).flatten()
        own = float(by_token_N[start : start + length].sum())
        by_token_N[start : start + length] = 0
        if not own or float(by_token_N.max()):
            return "an example reaches the losses of another"
    return ""


def _with_ends(truth: Truth, model: LanguageModel, exact: Exact) -> Exact:
    """Return the answer with where positions end, and whether the output head can be worked off in pieces."""
    exact = replace(exact, pieces=_pieces(truth, model))
    ends = truth.twin.ends
    if not ends:
        return exact
    if truth.ends():
        return replace(exact, positions=min(ends), exact_up_to=min(ends))
    return exact if _reads_longer(truth, model) else replace(exact, exact_up_to=min(ends))


def _reads_longer(truth: Truth, model: LanguageModel) -> bool:
    """Return whether an example beyond the positions of the model changes nothing for those beside it."""
    end, vocabulary = truth.twin.end, truth.twin.vocabulary
    items = [example(length, vocabulary, "longer") for length in (end + 9, end // 2, end + 21)]
    params = _clients(truth, model)[0]
    batch = pack([items], _CPU)
    model.context.batch = batch
    with torch.no_grad():
        found_S = model.token_losses(params, batch)
    right_S = truth.right_losses(params, items)
    return float((found_S - right_S).abs().max()) <= _TOLERANCE * float(right_S.mean())


def _pieces(truth: Truth, model: LanguageModel) -> bool:
    if model.head is None:
        return False
    batch = pack([truth.parts[1]], _CPU)
    inputs = {"input_ids": batch.tokens_N[None], "use_cache": False}
    params, model.context.batch = _clients(truth, model)[1], None
    try:
        with torch.no_grad():
            found_S = model.losses_in_pieces(params, inputs, batch.asked_S, batch.targets_S)
    except TROUBLE:
        return False
    right_S = truth.right_losses(params, truth.parts[1])
    return bool(torch.allclose(found_S, right_S, rtol=_TOLERANCE, atol=_TOLERANCE))


def keeps_logits(module: nn.Module) -> bool:
    """Return whether the module computes the logits of chosen tokens alone."""
    return "logits_to_keep" in inspect.signature(type(module).forward).parameters


def plain_head(module: "PreTrainedModel | Llama", trainable: Tree) -> nn.Linear | None:
    """Return the output head if it is one frozen linear layer, whatever lies between it and the blocks."""
    head = module.get_output_embeddings()
    below = all(name.startswith(f"{module.base_model_prefix}.") for name in trainable)
    if not isinstance(head, nn.Linear) or type(head) not in (nn.Linear, FrozenLinear) or not below:
        return None
    # A tied head would be trained with the embeddings.
    tied = any(module.get_parameter(name) is head.weight for name in trainable)
    return None if tied else head
