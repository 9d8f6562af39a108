"""Models of language and what passes through them: texts as tokens, packed batches.

Shape letters as in `contracts`: K stacked clients, E sequences (an example is one, or for a preference two neighbours),
N tokens of a packed row, S supervised tokens, V vocabulary.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedloom.base.errors import ModelError
from fedloom.base.plugin import Family
from fedloom.base.tree import Tree
from fedloom.contracts.chunked_loss import ChunkedLoss, piece_size, token_loss
from fedloom.contracts.examples import Turn
from fedloom.contracts.model import Batch, Model
from fedloom.contracts.reading import ReaderOf

__all__ = ["Encoded", "LanguageModel", "PackedBatch", "Passage", "Piece", "Template", "Tokenizer", "language_model"]

Passage = Literal["packed", "row", "alone"]
"""How a batch passes a model: as one row whose sequences its attention knows (`packed`) or finds by their positions
(`row`), or a sequence at a time (`alone`), which is the model's own forward pass and right for every model."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer, by the names of `transformers`, whose tokenizers are such."""

    eos_token: Any
    eos_token_id: Any
    bos_token_id: Any
    unk_token_id: Any
    all_special_tokens: Any
    all_special_ids: Any
    added_tokens_decoder: Any
    backend_tokenizer: Any
    chat_template: Any
    is_fast: Any
    """Whether there is a `backend_tokenizer`, the library's own."""

    def __len__(self) -> int:
        """Return the number of tokens, added ones included."""
        ...

    def __call__(self, text: Any, *, add_special_tokens: bool = True) -> Any:
        """Return under `input_ids` the tokens of a text, or of each of several."""

    def decode(self, tokens: Any, *, skip_special_tokens: bool = False, **options: Any) -> Any:
        """Return the text of a token or of several."""

    def get_chat_template(self) -> Any:
        """Return the chat template that is meant where several have names."""

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        """Return a conversation as text."""

    def save_pretrained(self, folder: Any) -> Any:
        """Write its files into a folder."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens: which are supervised, and what happened to it on the way."""

    tokens_T: Tensor  # int32
    supervised_T: Tensor  # bool: True where the token itself is to be predicted
    truncated: bool = False
    empty_answer: bool = False
    prompt_too_long: bool = False
    same_answers: bool = False
    cuts: tuple[int, ...] = ()
    """Where the second sequence of an example, and further ones, begin in its tokens; empty where there is one."""
    reference: tuple[float, ...] = ()
    """The summed log-probability that a reference model gives each sequence; empty where none was asked."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence."""
        return tuple(stop - start for start, stop in pairwise((0, *self.cuts, len(self.tokens_T))))


@dataclass(frozen=True, kw_only=True)
class PackedBatch(Batch):
    """E sequences of K clients as one row of N tokens: K parts, in each a client's sequences one after another.

    Where products are batched over clients, padding lies behind the sequences of a part up to the longest part; there
    is none between them, and none at all where parts are multiplied one by one. Nothing of one sequence reaches
    another: positions start anew, and attention works on the sequences side by side: in groups of like
    length, each E' x T' places with a sequence a line, M places in all. Four index tensors lead from one arrangement
    to the other and name what is padding in each. An example is a sequence, or several neighbouring ones.
    """

    tokens_N: Tensor  # int64
    positions_N: Tensor  # int64
    parts: tuple[int, ...]
    """Tokens of each client, padding not counted."""
    groups: tuple[tuple[int, int], ...]
    """Sequences and longest sequence of each group, the longest group first."""
    back_E: Tensor  # int64: where each sequence comes in the order of the groups
    place_M: Tensor  # int64: where a token side by side lies among N; 0 behind the end of its sequence
    home_N: Tensor  # int64: where a token lies among M; 0 for padding
    behind_B: Tensor  # int64: the places among M that lie behind the end of a sequence
    padding_Q: Tensor  # int64: the places among N that are padding
    asked_S: Tensor  # int64: the places among N whose next token is supervised
    targets_S: Tensor  # int64: those next tokens
    example_S: Tensor  # int64: whose they are; E for nobody's
    reference_E: Tensor  # float32: what the reference model gives each sequence; empty where none was asked
    lines: tuple[tuple[int, int], ...] = ()
    """Where each sequence begins among N, and how many tokens it has."""
    items: tuple[int, ...] = ()
    """How many neighbouring sequences each example is; empty where each is one."""
    in_order: bool = False
    """Whether the order of the groups is that of the sequences."""
    prompt_E: Tensor | None = None  # int64: the tokens of each sequence before the first that is supervised

    def by_group(self, values: Tensor) -> Tensor:
        """Return values [E, ...] by sequence in the order of the groups."""
        return values if self.in_order else values.index_select(0, self.back_E.argsort())

    @property
    def owner_X(self) -> Tensor:
        """The part in which each of the X examples lies."""
        return self.client_E[self.first_X] if self.items else self.client_E

    @property
    def first_X(self) -> Tensor:
        """The first sequence of each example."""
        if not self.items:
            return torch.arange(len(self.client_E), device=self.client_E.device)
        counts_X = torch.tensor(self.items, device=self.client_E.device)
        return counts_X.cumsum(0) - counts_X

    def by_example(self, values: Tensor) -> Tensor:
        """Return sums [X, ...] over the sequences of each example, of values [E, ...] by sequence."""
        if not self.items:
            return values
        if len(set(self.items)) == 1:
            return values.unflatten(0, (len(self.items), -1)).sum(1)
        return torch.stack([part.sum(0) for part in values.split(self.items)])

    @property
    def equal_parts(self) -> bool:
        """Whether all parts, padding included, have one length."""
        return self.tokens_N.numel() == len(self.parts) * max(self.parts)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Where each client's tokens begin and how many there are."""
        step = max(self.parts)
        starts = [step * k if self.equal_parts else sum(self.parts[:k]) for k in range(len(self.parts))]
        return list(zip(starts, self.parts, strict=True))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(length for _, length in self.groups)

    @property
    def even(self) -> bool:
        """Whether both arrangements are one: all sequences have one length, and there is no padding."""
        return len(self.groups) == 1 and self.place_M.numel() == self.tokens_N.numel() and not self.behind_B.numel()


@dataclass(frozen=True, kw_only=True)
class LanguageModel(Model):
    """A model that predicts the next token of texts."""

    tokenizer: Tokenizer
    passage: Passage
    """How a batch passes, as it was found to be exact when the model was built."""
    exact_up_to: int | None = None
    """Tokens of the longest sequence for which that holds; a batch with a longer one passes `alone`."""
    positions: int | None = None
    """Tokens of the longest sequence for which the model has positions; None where there is no such end."""
    context_size: int | None = None
    """Tokens that a prompt and its answer may have together; None where the configuration is silent."""
    ends: frozenset[int] = frozenset()
    """The tokens with which the model's own settings of generation end an answer."""
    keeps: bool = True
    """Whether the module computes logits of chosen tokens alone."""
    head: nn.Linear | None = None
    """The output head, if logits are its output as it stands and nothing trained lies in it."""
    body_prefix: str = ""
    """How the names begin of all that lies below the head."""
    width: int = 128
    """Numbers of a hidden state."""
    first: int = 0
    """The position of a sequence's first token: behind the places of a prefix."""
    both_ways: bool = False
    """Whether the tokens of a prompt see one another, before and behind; else each sees those before it."""
    reads: ReaderOf | None = None
    """What reads prompts in answers, where the module here is not the whole of the model."""

    def token_losses(self, params: Tree, batch: PackedBatch) -> Tensor:
        """Return the cross-entropies [S] of the tokens that `batch` asks for; no other token's logits are computed.

        A logit matrix that would be large is worked off in pieces where the output head is plain and frozen.
        """
        large = self.head is not None and len(batch.asked_S) * self.head.out_features >= piece_size(self.device)
        found = [
            self.losses_in_pieces(own, inputs, asked_S, targets_S)
            if large
            else token_loss(self._logits(own, inputs, asked_S), targets_S)
            for own, inputs, asked_S, targets_S in self._passes(params, batch)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    def token_logits(self, params: Tree, batch: PackedBatch) -> Tensor:
        """Return the logits [S, V] before the tokens that `batch` asks for, all at once: keep S small."""
        found = [self._logits(own, inputs, asked_S) for own, inputs, asked_S, _ in self._passes(params, batch)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def losses_in_pieces(self, params: Tree, inputs: dict[str, Any], asked_S: Tensor, targets_S: Tensor) -> Tensor:
        """Return the losses [S] from the body's last states and the head, without the logits of all tokens at once."""
        if self.head is None:
            raise ModelError(f"{type(self.module).__name__}: has no plain output head.")
        hidden_ND = self.states(params, inputs)[0]
        return ChunkedLoss.apply(hidden_ND[asked_S], self.head.weight, self.head.bias, targets_S)

    def states(self, params: Tree, inputs: dict[str, Any]) -> Tensor:
        """Return the body's last states [B, T, D]."""
        own = {name.removeprefix(self.body_prefix): tensor for name, tensor in params.items()}
        body = self.module.get_submodule(self.body_prefix[:-1])
        return self._call(body, own, inputs).last_hidden_state

    def entering(self, batch: PackedBatch, start: int, length: int) -> dict[str, Tensor]:
        """Return what enters the module of `length` tokens of a batch from place `start`, by the module's word."""
        return {"input_ids": batch.tokens_N[None, start : start + length]}

    def _logits(self, params: Tree, inputs: dict[str, Any], asked_S: Tensor) -> Tensor:
        if not self.keeps:
            return self._call(self.module, params, inputs).logits[0, asked_S]
        return self._call(self.module, params, inputs | {"logits_to_keep": asked_S}).logits[0]

    def _call(self, module: nn.Module, params: Tree, inputs: dict[str, Any]) -> Any:
        # Factors are tied to nothing, and looking for ties costs more than the swap itself.
        return functional_call(module, params, kwargs=inputs, tie_weights=not self.stackable)

    def _passes(self, params: Tree, batch: PackedBatch) -> Iterator[tuple[Tree, dict[str, Any], Tensor, Tensor]]:
        """Yield parameters, inputs and what is asked, with its targets, of each pass that the batch takes."""
        longer = self.exact_up_to is not None and batch.longest > self.exact_up_to
        if self.passage == "alone" or longer:
            yield from self._one_by_one(params, batch)
            return
        inputs: dict[str, Any] = self.entering(batch, 0, batch.tokens_N.numel())
        inputs |= {"position_ids": batch.positions_N[None] + self.first, "use_cache": False}
        if self.passage == "packed":
            # transformers hands a mask of four axes on as it is; our attention needs none.
            inputs |= {"attention_mask": batch.tokens_N.new_zeros(1, 1, 1, 1), "packed": batch}
        yield params, inputs, batch.asked_S, batch.targets_S

    def _one_by_one(self, params: Tree, batch: PackedBatch) -> Iterator[tuple[Tree, dict[str, Any], Tensor, Tensor]]:
        counts = batch.example_S.bincount(minlength=len(batch.lines))[: len(batch.lines)].tolist()
        asked, targets = batch.asked_S.split(counts), batch.targets_S.split(counts)
        for place, ((start, length), client) in enumerate(zip(batch.lines, batch.client_E.tolist(), strict=True)):
            own = self.of_one(params, place if self.context.per_example else client)
            inputs = {**self.entering(batch, start, length), "use_cache": False}
            with self.context.alone(client):
                yield own, inputs, asked[place] - start, targets[place]


def language_model(model: Model) -> LanguageModel:
    """Return a model that is one of language; ModelError for another."""
    if not isinstance(model, LanguageModel):
        raise ModelError(f"{type(model.module).__name__}: is no language model, which is needed here.")
    return model


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of formatted text, learnt from or not."""

    text: str
    supervised: bool


class Template(Family):
    """How turns become text, the same for training and evaluation.

    Contract: the pieces of `pieces(prompt turns)` joined, followed by a supervised piece, are how the training text
    begins; no unsupervised text changes when an answer follows.
    """

    folder = "fedloom.text.templates"
    begins: ClassVar[bool] = True
    """Whether the begin token that a tokenizer puts before texts by habit stands before the first piece."""

    @abstractmethod
    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; if the last turn is the user's, up to where the answer begins."""

    def texts(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[list[Piece]]:
        """Return what is learnt from a conversation: one text, or one for each answer where earlier ones change."""
        return [self.pieces(turns, tokenizer)]

    def jinja(self, tokenizer: Tokenizer) -> str | None:
        """Return the chat template of `transformers` that writes the same text; None where none is known."""
        return None
