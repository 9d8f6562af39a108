"""Instruction-following difficulty: how much an instruction helps a model to say the answer.

Source: Li et al., 2023, https://arxiv.org/abs/2308.12032: the mean loss of an answer's tokens given the instruction
over their mean loss without it; below 1 the instruction helps. Superfiltering (Li et al., 2024,
https://arxiv.org/abs/2402.00530) takes perplexities in place of mean losses, which orders examples alike only if
answers alone are alike: both are told. FedDQC (Du et al., 2024, https://arxiv.org/abs/2410.11540, section 3.2) takes
the difference, L(y) - L(y | x), as instruction-response alignment (IRA): higher is better aligned.

Deviations: the answer alone follows the begin token, if there is one, and the one token that stands before it in the
template, so that the very same tokens are predicted in both passes; published, it follows a whole marker or nothing.
The end of the answer counts as a token. Of several turns the last answer is taken, given all before. An example that
was cut off, or whose answer is empty, is not told at all rather than told of a part; who averages says how many.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Chat, Example, Turn
from fedloom.contracts.federated import Task
from fedloom.contracts.language import Encoded, LanguageModel

__all__ = ["Difficulty", "difficulties", "ifd", "perplexity"]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """The losses of one answer's tokens, summed over the same tokens; weight 0 where it is not told."""

    given: Mean
    """With the instruction before it."""
    alone: Mean
    """Without it."""

    @property
    def ratio(self) -> float:
        """Mean loss given the instruction over mean loss alone (Li et al., 2023); NaN where it is not told."""
        return self.given.value / self.alone.value if self.alone.total else math.nan

    @property
    def perplexity_ratio(self) -> float:
        """The same of perplexities (Superfiltering); NaN where it is not told."""
        return perplexity(Mean(self.given.value - self.alone.value, 1.0))

    @property
    def alignment(self) -> float:
        """Mean loss alone less mean loss given the instruction (IRA of FedDQC); NaN where it is not told."""
        return self.alone.value - self.given.value

    @property
    def scores(self) -> dict[str, Mean]:
        """Both ratios as scores that add up over examples; one that is not told weighs 0."""
        ratios = {"ifd": self.ratio, "ifd_perplexity": self.perplexity_ratio}
        return {name: Mean() if math.isnan(ratio) else Mean(ratio, 1.0) for name, ratio in ratios.items()}


def perplexity(loss: Mean) -> float:
    """Return the perplexity of summed token losses, 1 or more; NaN of no token, infinity beyond all numbers."""
    return math.exp(loss.value) if not loss.value > 709 else math.inf


def ifd(model: LanguageModel, task: Task, params: Tree, examples: Sequence[Example]) -> list[float]:
    """Return the ratio of each example (Li et al., 2023), NaN where it is not told."""
    return [found.ratio for found in difficulties(model, task, params, examples)]


def difficulties(model: LanguageModel, task: Task, params: Tree, examples: Sequence[Example]) -> list[Difficulty]:
    """Return the difficulty of each example, in their order, from packed batches.

    `task` learns the next token of answers. Of a Preference the chosen answer is taken; a Document, which has no
    instruction, raises DataError.
    """
    task = task.examining()
    items = [task.encode(_as_chat(example), model) for example in examples]
    told = [index for index, item in enumerate(items) if not _is_cut(item)]
    pairs = [_given_and_alone(items[index], model.tokenizer.bos_token_id) for index in told]
    with torch.no_grad():
        scores = task.scores(model, params, [[item for pair in pairs for item in pair]])[0] if pairs else []
    losses = [one["loss"] for one in scores]
    found = [Difficulty(Mean(), Mean())] * len(items)
    for place, index in enumerate(told):
        found[index] = Difficulty(losses[2 * place], losses[2 * place + 1])
    return found


def _as_chat(example: Example) -> Chat:
    if not example.prompt:
        kind = type(example).__name__
        raise DataError(f"ifd: found a {kind}, allowed are Chat and Preference examples: it has no instruction.")
    return Chat((*example.prompt, Turn("assistant", example.reference)), example.tags)


def _is_cut(item: Encoded) -> bool:
    return item.truncated or item.prompt_too_long or item.empty_answer


def _given_and_alone(item: Encoded, begin: object) -> tuple[Encoded, Encoded]:
    """Return the last answer after all that stands before it, and after as little as can predict its first token."""
    learnt = item.supervised_T.tolist()
    end = len(learnt) - learnt[::-1].index(True)
    start = end - learnt[:end][::-1].index(False)
    tokens_T = item.tokens_T[:end]
    given_T = torch.arange(end) >= start
    first = 1 if start > 1 and int(tokens_T[0]) == begin else 0
    lead_T = torch.cat([tokens_T[:first], tokens_T[start - 1 : start]])
    alone_T = torch.cat([lead_T, tokens_T[start:]])
    return Encoded(tokens_T, given_T), Encoded(alone_T, torch.arange(len(alone_T)) >= len(lead_T))
