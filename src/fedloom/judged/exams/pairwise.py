"""Win rate against a second model: a judge compares both answers in both orders.

Source: the pairwise mode of MT-Bench (Zheng et al., 2023, https://arxiv.org/abs/2306.05685, sections 3.1 and 3.4): a
judge prefers what stands first, so it is asked twice, and a win counts only if both orders agree.

Scores: `win_rate`, each turn a game: 1 if the candidate is preferred in both orders, 0 if the other is, else 1/2;
`consistent`, 1 if both orders give one verdict; `unparsed` over all verdicts. A game with an unparsed verdict is
scored nowhere.

Deviations: prompts written anew; questions of any exam may be asked, with its temperatures; both games of a two-turn
question count alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field

from fedloom.base.errors import ConfigError
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup, plugin
from fedloom.contracts.evaluation import Answered, Exam, GradeRequest, Prompt, Question, Sampling
from fedloom.judged.exams import UNPARSED
from fedloom.judged.exams._prompts import RUBRIC, TEXTS, asked, dialogue, section
from fedloom.judged.exams._verdicts import choice, unparsed

__all__ = ["Pairwise"]

_WORTH = {"candidate": 1.0, "other": 0.0, "tie": 0.5}


@plugin("pairwise")
class Pairwise(Exam):
    """The questions of another exam, answered by two models."""

    needs_other = True

    of: Exam = field(default_factory=lambda: lookup(Exam, "world_exam")())
    """The exam whose questions are asked, with its sampling."""

    def check(self) -> None:
        """Refuse the questions of a comparison."""
        if self.of.needs_other:
            raise ConfigError(f"of: found '{self.of.name}', which compares too; allowed is an exam of one model.")

    def questions(self) -> Sequence[Question]:
        """Return the questions of `of`; raises as it does."""
        return self.of.questions()

    def sampling(self, question: Question) -> Sampling:
        """Return how `of` has it answered."""
        return self.of.sampling(question)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return two requests for each turn: the candidate's dialogue shown as A, and as B."""
        if other is None:
            raise ConfigError("pairwise: found no second model to compare with; give one by --against.")
        found: list[GradeRequest] = []
        for turn in range(1, len(answered.answers) + 1):
            found.append(GradeRequest(f"turn_{turn}/first", _prompt(answered, other, turn)))
            found.append(GradeRequest(f"turn_{turn}/second", _prompt(other, answered, turn)))
        return found

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return the outcome of each turn's game, added up."""
        won, agreed, missing = Mean(), Mean(), Mean()
        for turn in range(1, len(answered.answers) + 1):
            first = _preferred(verdicts[f"turn_{turn}/first"], a="candidate", b="other")
            second = _preferred(verdicts[f"turn_{turn}/second"], a="other", b="candidate")
            missing += unparsed(first, second)
            if first is not None and second is not None:
                won += Mean(_WORTH[first] if first == second else 0.5, 1.0)
                agreed += Mean(float(first == second), 1.0)
        return {"win_rate": won, "consistent": agreed, UNPARSED: missing}


def _preferred(verdict: str, *, a: str, b: str) -> str | None:
    word = choice(verdict, ("a", "b", "c"))
    return None if word is None else {"a": a, "b": b, "c": "tie"}[word]


def _prompt(one: Answered, two: Answered, turn: int) -> Prompt:
    texts = TEXTS["pairwise"]
    task = texts["first" if turn == 1 else "last"]
    shown = (section(name, dialogue(answered, turn)) for name, answered in (("A", one), ("B", two)))
    return asked(f"{task} {RUBRIC}", *shown, texts["verdict"])
