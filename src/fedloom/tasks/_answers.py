"""What a model writes for the questions of examples, greedily: shared by all tasks whose examples have a question."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Prediction, Template
from fedloom.contracts.language import LanguageModel, Tokenizer
from fedloom.models.decoder import complete
from fedloom.models.generation import prompt_tokens, stop_tokens
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
        # Stacked clients are asked as many prompts each: all of them as many as the fewest, the others some more.
        for start, end in pairwise(sorted({0, *map(len, asked)})):
            active = [k for k, mine in enumerate(asked) if len(mine) > start]
            places = [(k, i) for k in active for i in asked[k][start:end]]
            own, rows = of_active(params, active, len(parts)), [prompts[k][i] for k, i in places]
            answers = complete(
                model, own, rows, stop=stop, max_new_tokens=max_new_tokens, owners=len(active), slots=self.batch
            )
            for (k, i), answer in zip(places, answers, strict=True):
                result[k][i] = _prediction(answer, stop, model.tokenizer)
        return result

    def _prompt(self, example: Example, model: LanguageModel) -> list[int]:
        if not example.prompt:
            raise DataError(f"found a {type(example).__name__} to be answered: it has no question.")
        return prompt_tokens(self.template, example.prompt, model.tokenizer)


def _by_length(prompts: Sequence[Sequence[int]], max_length: int) -> list[int]:
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    return [index for index in order if len(prompts[index]) <= max_length]


def check_room(model: LanguageModel, length: int) -> None:
    """Refuse sequences that run over the end of a table of positions."""
    limit = model.positions
    if limit is not None and length > limit:
        raise ConfigError(
            f"prompts with their answers take up to {length} tokens, the model has {limit} positions: lower "
            "task.max_length or the number of new tokens."
        )


def _prediction(answer: Sequence[int], stop: frozenset[int], tokenizer: Tokenizer) -> Prediction:
    text_ids = answer[:-1] if answer[-1] in stop else answer
    text = tokenizer.decode(list(text_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Prediction(str(text).strip(), len(answer))
