"""Supervised fine-tuning: the next token of the answers, of all assistant turns alike.

The loss is that of OpenFedLLM (Ye et al., 2024, https://arxiv.org/abs/2402.06954): the sum over the response tokens of
-log p(y_j | x, y_<j), the end token among them. Which tokens these are comes from the template's pieces; no marker is
searched for, and padding is told by a mask, never by its id.

Deviations: the published mask is found by searching for the tokens of a marker, which masks whole examples with other
tokenizers; several assistant turns are all learnt; raw documents are learnt in full.
"""

from collections.abc import Sequence
from dataclasses import field, replace
from itertools import accumulate
from typing import Literal

import torch

from fedloom.base.errors import DataError, ModelError
from fedloom.base.mean import LossSum, Mean
from fedloom.base.plugin import AtLeast, default, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Chat, Document, Example, Turn
from fedloom.contracts.federated import Prediction, Task, Template
from fedloom.contracts.language import Encoded, LanguageModel, PackedBatch, Piece, Tokenizer
from fedloom.models.packing import alike, pack
from fedloom.tasks._answers import Answering, check_room
from fedloom.tasks._losses import losses, summed_losses, token_counts
from fedloom.text.masks import pieces_to_tokens

__all__ = ["Sft"]


@plugin("sft")
class Sft(Task):
    """Next-token prediction of answers (Chat) and of whole texts (Document)."""

    template: Template = field(default_factory=default(Template, "own"))
    """How turns become text."""
    learn: Literal["answers", "all"] = "answers"
    """What of a conversation is learnt: its answers, or every turn, so that the model can ask such questions, too. The
    losses of held-out examples are of answers either way."""
    max_length: AtLeast = 512
    """Tokens per example; what lies beyond is cut off. A longer prompt has nothing to learn and is not answered."""
    batch: AtLeast = 128
    """Prompts answered together."""

    def encode(self, example: Example, model: LanguageModel) -> Encoded:
        """Return the example as at most `max_length` tokens; a Preference is refused."""
        match example:
            case Chat(turns=turns):
                texts, begin = self.template.texts(turns, model.tokenizer), self.template.begins
                if self.learn == "all":
                    _refuse_left_out(turns)
                    texts = [[replace(piece, supervised=True) for piece in pieces] for pieces in texts]
                blank = any(turn.role == "assistant" and not turn.text.strip() for turn in turns)
            case Document(text=text):
                texts, begin = [[Piece(text + _end_of_text(model.tokenizer), supervised=True)]], True
                blank = not text.strip()
            case _:
                kind = type(example).__name__
                raise DataError(
                    f"task 'sft' learns from Chat and Document examples, found a {kind}: choose another task."
                )
        whole = [pieces_to_tokens(one, model.tokenizer, begin=begin, most=self.max_length) for one in texts]
        check_room(model, max(min(len(tokens), self.max_length) for tokens, _ in whole))
        learnt = [(tokens, marks) for tokens, marks in whole if any(marks[: self.max_length])]
        kept = learnt or whole[:1]
        parts = [(tokens[: self.max_length], marks[: self.max_length]) for tokens, marks in kept]
        return Encoded(
            tokens_T=torch.tensor([token for tokens, _ in parts for token in tokens], dtype=torch.int32),
            supervised_T=torch.tensor([mark for _, marks in parts for mark in marks], dtype=torch.bool),
            truncated=bool(learnt) and any(len(tokens) > self.max_length for tokens, _ in whole),
            empty_answer=blank,
            prompt_too_long=not learnt,
            cuts=tuple(accumulate(len(tokens) for tokens, _ in parts[:-1])),
        )

    def examining(self) -> "Sft":
        """Return the task of answers alone: questions are no part of what a model is examined in."""
        return replace(self, learn="answers")

    def longest(self) -> int:
        """Return the most tokens of an example."""
        return self.max_length

    def size(self, item: Encoded) -> int:
        """Return the tokens."""
        return len(item.tokens_T)

    def targets(self, item: Encoded) -> int:
        """Return the supervised tokens."""
        return int(item.supervised_T.sum())

    def counts(self, items: Sequence[Encoded]) -> dict[str, int]:
        """Return how many were kept, cut and empty, and their tokens."""
        return token_counts(items)

    def collate(self, parts: Sequence[Sequence[Encoded]], model: LanguageModel) -> PackedBatch:
        """Return the clients' examples packed into one row, with no padding between them."""
        return pack(parts, model.device, width=model.width)

    def alike(self, parts: Sequence[Sequence[Encoded]], model: LanguageModel) -> list[PackedBatch] | None:
        """Return batches of sequences padded to one length."""
        return alike(parts, model)

    def loss(self, model: LanguageModel, params: Tree, batch: PackedBatch) -> LossSum:
        """Return the summed cross-entropy of the supervised tokens of each example, in float32 or better."""
        return summed_losses(batch, model.token_losses(params, batch))

    def scores(
        self, model: LanguageModel, params: Tree, parts: Sequence[Sequence[Encoded]]
    ) -> list[list[dict[str, Mean]]]:
        """Return each example's loss per supervised token."""
        return [[{"loss": loss} for loss in part] for part in losses(self, model, params, parts)]

    def predict(
        self, model: LanguageModel, params: Tree, parts: Sequence[Sequence[Example]], *, max_new_tokens: int
    ) -> list[list[Prediction]]:
        """Return the model's greedy answer to the last question of each example; a Document is refused."""
        answering = Answering(self.template, self.max_length, self.batch)
        return answering.answers(model, params, parts, max_new_tokens=max_new_tokens)


def _refuse_left_out(turns: Sequence[Turn]) -> None:
    if not all(turn.learnt for turn in turns):
        raise DataError(
            "task.learn: found 'all' with an answer that its record leaves out of what is learnt (weight = 0, train = "
            "false); allowed is 'answers'."
        )


def _end_of_text(tokenizer: Tokenizer) -> str:
    if tokenizer.eos_token is None:
        raise ModelError("the tokenizer has no end-of-text token, documents need one: set its eos_token.")
    return str(tokenizer.eos_token)
