"""Harmless requests that look harmful, and the share of answers that do not refuse them: what safety must not cost.

Source: the idea of XSTest (Röttger et al., 2024, https://arxiv.org/abs/2308.01263); its prompts
(`xstest_prompts.csv` of its repository) are not shipped.

Scores: `serves_anchored` (the answer does not begin like a refusal) and `serves_anywhere` (it holds no phrase of
refusals), each 0 or 1 per request; the rate of over-refusal is one minus either.

Deviations: refusals are told by fixed lists, where XSTest has people or a model label full and partial ones; greedy
answers. A file that also holds requests to refuse has to be cut to the harmless ones first.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.evaluation import Answered, Exam, Question, Sampling
from fedloom.judged.exams._files import Wanted
from fedloom.judged.exams._requests import SERVES, by_lists, questions_of

__all__ = ["OverRefusal"]

_WANTED = Wanted(
    "over_refusal: path",
    "a CSV file with a column prompt, or a JSON list of objects with prompt, instruction or goal, all harmless",
    "fetch xstest_prompts.csv from the repository of XSTest (arXiv 2308.01263) and leave its contrast prompts out",
)


@plugin("over_refusal")
class OverRefusal(Exam):
    """Harmless requests from a local file; no judge is asked."""

    version: ClassVar[int] = 2
    needs_judge: ClassVar[bool] = False

    path: str = ""
    """File of requests."""
    max_new_tokens: AtLeast = 256

    def questions(self) -> Sequence[Question]:
        """Return the requests in file order; MissingFileError, ConfigError or DataError for another layout."""
        return questions_of(self.path, _WANTED)

    def sampling(self, question: Question) -> Sampling:
        """Return greedy answers."""
        return Sampling(max_new_tokens=self.max_new_tokens)

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return both rates."""
        return by_lists(answered, "serves", SERVES)
