"""What a model writes for the questions of examples, greedily: shared by all tasks whose examples have a question."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Prediction, Template
from fedloom.contracts.language import LanguageModel
from fedloom.models.generation import complete, prompt_tokens, stop_tokens
from fedloom.tasks._losses import of_active

__all__ = ["Answering", "check_room"]


@dataclass(frozen=True)
class Answering:
    """How questions become answers."""

    template: Template
    max_length: int
    batch: int

    def answers(
        self, model: LanguageModel, params: Tree, parts: Sequence[Sequence[Example]], *, max_new_tokens: int
    ) -> list[list[Prediction]]:
        """Return the model's greedy answer to the last question of each example of each part, in their order.

        An answer ends with the end token of the template or of the tokenizer, which counts in `n_tokens` but is not
        in the text. A prompt longer than `max_length` is not answered: its text is empty and `n_tokens` is 0.
        """
        known: dict[int, list[int]] = {}  # stacked clients are often asked the same
        for example in (example for part in parts for example in part):
            if id(example) not in known:
                known[id(example)] = self._prompt(example, model)
        prompts = [[known[id(example)] for example in part] for part in parts]
        asked = [_by_length(part, self.max_length) for part in prompts]
        longest = max((len(prompts[k][i]) for k, mine in enumerate(asked) for i in mine), default=0)
        check_room(model, longest + max_new_tokens)
        stop = stop_tokens(self.template, model.tokenizer)
        result = [[Prediction("", 0)] * len(part) for part in parts]
        size = max(1, self.batch // len(parts)) if parts else 1
        for start in range(0, max(map(len, asked), default=0), size):
            active = [k for k, mine in enumerate(asked) if len(mine) > start]
            chosen = [asked[k][start : start + size] for k in active]
            width = max(map(len, chosen))
            # Stacked clients need as many prompts each: who has fewer repeats its first, and nobody reads the answer.
            rows = [prompts[k][i] for k, mine in zip(active, chosen, strict=True) for i in _filled(mine, width)]
            own = of_active(params, active, len(parts))
            answers = complete(model, own, rows, stop=stop, max_new_tokens=max_new_tokens, owners=len(active))
            for turn, (k, mine) in enumerate(zip(active, chosen, strict=True)):
                for index, answer in zip(mine, answers[turn * width :], strict=False):
                    result[k][index] = _prediction(answer, stop, model.tokenizer)
        return result

    def _prompt(self, example: Example, model: LanguageModel) -> list[int]:
        if not example.prompt:
            raise DataError(f"found a {type(example).__name__} to be answered: it has no question.")
        return prompt_tokens(self.template, example.prompt, model.tokenizer)


def _by_length(prompts: Sequence[Sequence[int]], max_length: int) -> list[int]:
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    return [index for index in order if len(prompts[index]) <= max_length]


def _filled(places: Sequence[int], width: int) -> list[int]:
    return [*places, *[places[0]] * (width - len(places))]


def check_room(model: LanguageModel, length: int) -> None:
    """Refuse sequences that run over the end of a table of positions."""
    limit = model.positions
    if limit is not None and length > limit:
        raise ConfigError(
            f"prompts with their answers take up to {length} tokens, the model has {limit} positions: lower "
            "task.max_length or the number of new tokens."
        )


def _prediction(answer: Sequence[int], stop: frozenset[int], tokenizer: PreTrainedTokenizerBase) -> Prediction:
    text_ids = answer[:-1] if answer[-1] in stop else answer
    text = tokenizer.decode(list(text_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Prediction(str(text).strip(), len(answer))
