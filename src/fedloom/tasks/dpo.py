"""Direct preference optimisation: the chosen answer above the rejected one, measured from a reference model.

Rafailov et al., 2023, https://arxiv.org/abs/2305.18290, equation 7: with log-probabilities summed over the tokens of an
answer, end token included, and h = [log pi(y_w|x) - log pi_ref(y_w|x)] - [log pi(y_l|x) - log pi_ref(y_l|x)], the loss
of a pair is -log sigmoid(beta h). Label smoothing e (the section on conservative DPO in Mitchell, 2023,
https://ericmitchell.ai/cdpo.pdf): -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h). IPO (Azar et al., 2023,
https://arxiv.org/abs/2310.12036, equation 17): (h' - 1 / (2 beta))^2, h' made of means over tokens in place of sums.

The prompt ends where the last answer begins, told by the turns, never by characters that two answers share. The
reference never changes, so that its log-probabilities are computed once per example.

Deviations: IPO's log-probabilities are means over the tokens of an answer, as in trl and in the figures of its paper,
not sums as in its equations. A pair counts once, however long its answers are.
"""

from collections.abc import Sequence
from dataclasses import field, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.mean import LossSum, Mean
from fedloom.base.plugin import AtLeast, Positive, Range, default, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.chunked_loss import LARGE
from fedloom.contracts.examples import Chat, Example, Preference, Turn
from fedloom.contracts.federated import Prediction, Task, Template
from fedloom.contracts.language import Encoded, LanguageModel, PackedBatch
from fedloom.contracts.model import sums_by
from fedloom.models.generation import template_tokens
from fedloom.models.packing import alike, pack
from fedloom.models.prefix import prefix_names
from fedloom.tasks._answers import Answering, check_room
from fedloom.tasks._losses import passes, token_counts

__all__ = ["Dpo"]

_Answer = tuple[list[int], list[bool], bool]


@plugin("dpo")
class Dpo(Task):
    """Preference pairs; questions with one answer (Chat) can be asked in an evaluation, not learnt from."""

    learns: ClassVar[tuple[type[Example], ...]] = (Preference,)
    tells: ClassVar[tuple[str, ...]] = (
        *("loss", "preference_accuracy", "likelihood_accuracy", "reward_margin", "chosen_reward", "rejected_reward"),
        *("kl_to_reference", "answer_loss"),
    )

    beta: Positive = 0.1
    """How strongly the model is held to the reference."""
    variant: Literal["sigmoid", "ipo"] = "sigmoid"
    """The loss of a pair: DPO's own, or IPO's."""
    label_smoothing: Annotated[float, Range(0, 0.5)] = 0.0
    """Share of pairs believed to be the wrong way round (sigmoid only); below 0.5."""
    reference: Literal["start", "base"] = "start"
    """The model that training starts from (with `model.adapter`, the tuned one), or the base with adapters off."""
    template: Template = field(default_factory=default(Template, "own"))
    """How turns become text."""
    max_length: AtLeast = 512
    """Tokens of prompt and answer; what of an answer lies beyond is cut off and counted."""
    max_prompt_length: AtLeast = 384
    """Tokens of a prompt; of a longer one the end is kept, and it is counted."""
    batch: AtLeast = 128
    """Prompts answered together."""

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        if self.label_smoothing == 0.5 or (self.label_smoothing and self.variant == "ipo"):
            raise ConfigError(
                f"label_smoothing: found {self.label_smoothing:g} with variant '{self.variant}', allowed is a number "
                "below 0.5 with 'sigmoid'."
            )
        if self.max_prompt_length >= self.max_length:
            raise ConfigError(
                f"max_prompt_length: found {self.max_prompt_length}, allowed is less than max_length = "
                f"{self.max_length}: an answer needs room."
            )

    def encode(self, example: Example, model: LanguageModel) -> Encoded:
        """Return a pair as two sequences that begin with the same prompt, a Chat as one; a Document is refused.

        Of a pair whose answers are the same, as they are or as far as `max_length` leaves them, nothing is supervised.
        """
        match example:
            case Preference(prompt=prompt, chosen=chosen, rejected=rejected):
                answers = (chosen, rejected)
            case Chat():
                prompt, answers = example.prompt, (example.reference,)
            case _:
                kind = type(example).__name__
                raise DataError(f"task 'dpo' knows Preference examples and Chat questions, found a {kind}.")
        asked, _ = template_tokens(self.template, prompt, model.tokenizer)
        sequences = [self._answer(prompt, asked, answer, model) for answer in answers]
        tokens = [token for found, _, _ in sequences for token in found]
        supervised = [learnt for _, found, _ in sequences for learnt in found]
        check_room(model, max(len(found) for found, _, _ in sequences))
        whole = all(any(found) for _, found, _ in sequences)
        same = len(sequences) == 2 and sequences[0][0] == sequences[1][0]
        supervised = supervised if whole and not same else [False] * len(supervised)
        return Encoded(
            tokens_T=torch.tensor(tokens, dtype=torch.int32),
            supervised_T=torch.tensor(supervised, dtype=torch.bool),
            truncated=len(asked) > self.max_prompt_length or any(short for _, _, short in sequences),
            empty_answer=any(not answer.strip() for answer in answers),
            prompt_too_long=not whole,
            same_answers=same,
            cuts=(len(sequences[0][0]),) if len(sequences) > 1 else (),
        )

    def _answer(self, prompt: Sequence[Turn], asked: list[int], answer: str, model: LanguageModel) -> _Answer:
        """Return prompt and answer as tokens, what is supervised (the answer), and whether the answer was cut.

        `asked` are the tokens of the prompt, with which those of the whole begin; of a long prompt the end is kept.
        """
        tokens, supervised = template_tokens(self.template, (*prompt, Turn("assistant", answer)), model.tokenizer)
        begin, start = asked[-self.max_prompt_length :], len(asked)
        tokens, supervised = begin + tokens[start:], [False] * len(begin) + supervised[start:]
        return tokens[: self.max_length], supervised[: self.max_length], len(tokens) > self.max_length

    def size(self, item: Encoded) -> int:
        """Return the tokens."""
        return len(item.tokens_T)

    def targets(self, item: Encoded) -> int:
        """Return the supervised tokens."""
        return int(item.supervised_T.sum())

    def counts(self, items: Sequence[Encoded]) -> dict[str, int]:
        """Return how many were kept, cut and empty, and their tokens."""
        return token_counts(items)

    def prepared(self, items: Sequence[Encoded], model: LanguageModel) -> list[Encoded]:
        """Return pairs with the log-probabilities of the reference model, one pass over all of them."""
        params = _adapters_off(model) if self.reference == "base" else model.trainable
        result = list(items)
        pairs = [index for index, item in enumerate(items) if item.cuts]
        with torch.no_grad():
            for one in passes(self, model, params, [[items[index] for index in pairs]]):
                sums_X2 = _log_probabilities(model, params, one.batch).view(-1, 2)
                for (_, place), reference in zip(one.flat, sums_X2.tolist(), strict=True):
                    result[pairs[place]] = replace(items[pairs[place]], reference=tuple(reference))
        return result

    def collate(self, parts: Sequence[Sequence[Encoded]], model: LanguageModel) -> PackedBatch:
        """Return the clients' pairs packed into one row."""
        return pack(parts, model.device, width=model.width)

    def alike(self, parts: Sequence[Sequence[Encoded]], model: LanguageModel) -> list[PackedBatch] | None:
        """Return batches of sequences padded to one length."""
        return alike(parts, model)

    def loss(self, model: LanguageModel, params: Tree, batch: PackedBatch) -> LossSum:
        """Return the loss of each pair, of weight 1."""
        policy_X2 = _log_probabilities(model, params, batch).view(-1, 2)
        return self._loss(policy_X2, batch)

    def _loss(self, policy_X2: Tensor, batch: PackedBatch) -> LossSum:
        ratio_X2 = policy_X2 - batch.reference_E.view(-1, 2)
        counts_X2 = _counts(batch).view(-1, 2)
        weight_X = (counts_X2.sum(1) > 0).to(ratio_X2.dtype)  # padding of stacked batches is no pair
        if self.variant == "ipo":
            mean_X2 = ratio_X2 / counts_X2.clamp(min=1)
            loss_X = (mean_X2[:, 0] - mean_X2[:, 1] - 1 / (2 * self.beta)) ** 2
        else:
            scaled_X = self.beta * (ratio_X2[:, 0] - ratio_X2[:, 1])
            smoothing = self.label_smoothing
            loss_X = -(1 - smoothing) * logsigmoid(scaled_X) - smoothing * logsigmoid(-scaled_X)
        return LossSum(loss_X * weight_X, weight_X)

    def scores(
        self, model: LanguageModel, params: Tree, parts: Sequence[Sequence[Encoded]]
    ) -> list[list[dict[str, Mean]]]:
        """Return of each pair: loss, preference_accuracy, likelihood_accuracy, reward_margin, chosen_reward,
        rejected_reward and kl_to_reference; of a Chat the loss of its answer per token, as answer_loss.

        A reward is beta times the log-ratio to the reference (section 5 of the paper), so the reference itself is half
        right; likelihood_accuracy asks whether the chosen answer is the likelier one. A tie is half right.
        kl_to_reference is the exact divergence KL(pi || pi_ref) at the tokens of the chosen answer, in nats a token: on
        given answers, not on the model's own.
        """
        result: list[list[dict[str, Mean]]] = [[{} for _ in part] for part in parts]
        width = max(1, LARGE // len(model.tokenizer))
        for kind in (False, True):
            places = [[i for i, item in enumerate(part) if bool(item.cuts) == kind] for part in parts]
            chosen = [[part[i] for i in mine] for part, mine in zip(parts, places, strict=True)]
            for one in passes(self, model, params, chosen, most_tokens=width):
                tell = self._pair_scores if kind else _answer_losses
                for (part, place), scores in zip(one.flat, tell(model, one.params, one.batch), strict=True):
                    result[part][places[part][place]] = scores
        return result

    def _pair_scores(self, model: LanguageModel, params: Tree, batch: PackedBatch) -> list[dict[str, Mean]]:
        log_SV = model.token_logits(params, batch).float().log_softmax(1)
        policy_X2 = _summed(log_SV.gather(1, batch.targets_S[:, None]).squeeze(1), batch).view(-1, 2)
        reward_X2 = self.beta * (policy_X2 - batch.reference_E.view(-1, 2))
        start = _adapters_off(model) if self.reference == "base" else model.trainable
        reference_SV = model.token_logits(start, batch).float().log_softmax(1)
        kl_X2 = _summed((log_SV.exp() * (log_SV - reference_SV)).sum(1), batch).view(-1, 2)
        margin_X = reward_X2[:, 0] - reward_X2[:, 1]
        columns = {
            "loss": self._loss(policy_X2, batch).total_B,
            "preference_accuracy": _right(margin_X),
            "likelihood_accuracy": _right(policy_X2[:, 0] - policy_X2[:, 1]),
            "reward_margin": margin_X,
            "chosen_reward": reward_X2[:, 0],
            "rejected_reward": reward_X2[:, 1],
        }
        rows, counts = torch.stack(list(columns.values()), dim=1).tolist(), _counts(batch).view(-1, 2)[:, 0].tolist()
        return [
            {name: Mean(value, 1.0) for name, value in zip(columns, row, strict=True)}
            | {"kl_to_reference": Mean(kl, count)}
            for row, kl, count in zip(rows, kl_X2[:, 0].tolist(), counts, strict=True)
        ]

    def predict(
        self, model: LanguageModel, params: Tree, parts: Sequence[Sequence[Example]], *, max_new_tokens: int
    ) -> list[list[Prediction]]:
        """Return the model's greedy answer to the prompt of each example."""
        answering = Answering(self.template, self.max_length, self.batch)
        return answering.answers(model, params, parts, max_new_tokens=max_new_tokens)


def _right(difference_X: Tensor) -> Tensor:
    return (difference_X > 0).float() + 0.5 * (difference_X == 0)


def _adapters_off(model: LanguageModel) -> Tree:
    """Return parameters with which the adapters add nothing; a model without adapters is as it was built.

    A prefix has no places then, and positions begin where they do behind it.
    """
    own = dict(model.module.named_parameters())
    off = {name: torch.zeros_like(p) for name, p in own.items() if name.endswith(".lora_B")}
    off |= {name: own[name][:0] for name in prefix_names(model.module)}
    return off or model.trainable


def _log_probabilities(model: LanguageModel, params: Tree, batch: PackedBatch) -> Tensor:
    """Return the summed log-probability of the supervised tokens of each sequence [E]."""
    return _summed(-model.token_losses(params, batch), batch)


def _summed(values_S: Tensor, batch: PackedBatch) -> Tensor:
    # One place more than there are sequences: nobody's tokens fall into it.
    n_sequences = len(batch.client_E)
    return sums_by(values_S, batch.example_S, n_sequences + 1)[:n_sequences]


def _counts(batch: PackedBatch) -> Tensor:
    """Return the supervised tokens of each sequence [E]."""
    return _summed(torch.ones_like(batch.example_S, dtype=torch.float32), batch)


def _answer_losses(model: LanguageModel, params: Tree, batch: PackedBatch) -> list[dict[str, Mean]]:
    totals_E, counts_E = -_log_probabilities(model, params, batch), _counts(batch)
    pairs = zip(totals_E.tolist(), counts_E.tolist(), strict=True)
    return [{"answer_loss": Mean(total, count)} for total, count in pairs]
