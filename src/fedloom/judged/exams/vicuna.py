"""Vicuna's 80 questions, one turn each, every answer graded from 1 to 10 by a judge.

Source: Chiang et al., 2023, https://lmsys.org/blog/2023-03-30-vicuna/; the questions are FastChat's
(https://github.com/lm-sys/FastChat, `fastchat/llm_judge/data/vicuna_bench`), which are not shipped: ten each generic,
knowledge, roleplay, common-sense, fermi, counterfactual and writing, seven coding, three math. Recipe as OpenFedLLM's
(https://arxiv.org/abs/2402.06954): temperature 0.7, at most 2,048 new tokens; the judge at 0.2, an explanation, then
the grade.

Scores: `grade`, 1 to 10, and `unparsed`.

Deviations: prompts written anew; the published mean counts a verdict without a grade as -1, here it is counted apart
and scored nowhere.
"""

from collections.abc import Sequence

from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.evaluation import Question
from fedloom.judged.exams._files import Record, numbered
from fedloom.judged.exams._forms import GradedFile

__all__ = ["Vicuna"]


@plugin("vicuna")
class Vicuna(GradedFile):
    """Vicuna's questions from a local copy, in FastChat's layout."""

    layout = "JSON Lines of objects with question_id, category and turns (one text) or, in older copies, text"
    fetch = "fetch fastchat/llm_judge/data/vicuna_bench/question.jsonl from github.com/lm-sys/FastChat"
    score = "grade"
    mark = "question"

    max_new_tokens: AtLeast = 2048

    def questions(self) -> Sequence[Question]:
        """Return the questions in file order; MissingFileError, ConfigError or DataError as `mt_bench`."""
        return [self._question(record) for record in numbered(self.path, self.wanted)]

    def _question(self, record: Record) -> Question:
        match record:
            case {"question_id": int() | str() as name, "category": str() as category, "turns": [str() as text]} | {
                "question_id": int() | str() as name,
                "category": str() as category,
                "text": str() as text,
            }:
                return Question(str(name), (text,), category)
            case _:
                raise self.wanted.wrong(self.path, f"an object with {', '.join(sorted(record))}, turns of another form")
