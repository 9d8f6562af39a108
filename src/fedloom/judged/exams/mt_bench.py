"""MT-Bench: two-turn questions in eight categories, each answer graded from 1 to 10 by a judge.

Source: Zheng et al., 2023, https://arxiv.org/abs/2306.05685; questions and reference answers are FastChat's
(https://github.com/lm-sys/FastChat, `fastchat/llm_judge/data/mt_bench`), 80 questions, ten of each category, which are
not shipped. Recipe: temperature 0.7 for writing and roleplay, 0.1 for stem and humanities, greedy for the others; at
most 1,024 new tokens; the judge greedy, at most 2,048. Reasoning, maths and coding are graded beside a reference. The
second grade is given on the whole dialogue and for its second answer.

Scores: `turn_1`, `turn_2`, `mean` (over all grades), each 1 to 10, and `unparsed`.

Deviations: prompts written anew; a verdict without one grade from 1 to 10 is counted apart and scored nowhere, where
the published code takes the first of several; questions of the three categories need a reference, where that code looks
for one in the judge's file alone.
"""

from collections.abc import Mapping, Sequence

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.evaluation import Answered, Exam, GradeRequest, Prompt, Question, Sampling
from fedloom.judged.exams import UNPARSED
from fedloom.judged.exams._files import Record, Wanted, numbered
from fedloom.judged.exams._prompts import GRADE, RUBRIC, TEXTS, asked, dialogue, sections
from fedloom.judged.exams._verdicts import counted, grade, unparsed

__all__ = ["TEMPERATURES", "WITH_REFERENCE", "MtBench"]

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "stem": 0.1,
    "humanities": 0.1,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
}
WITH_REFERENCE = ("math", "reasoning", "coding")

_FETCH = "fetch fastchat/llm_judge/data/mt_bench/{} from github.com/lm-sys/FastChat"
_QUESTIONS = Wanted(
    "mt_bench: path",
    "JSON Lines of objects with question_id, category and turns (two texts)",
    _FETCH.format("question.jsonl"),
)
_REFERENCES = Wanted(
    "mt_bench: references",
    "JSON Lines of objects with question_id and choices (the first one's turns are the reference)",
    _FETCH.format("reference_answer/gpt-4.jsonl"),
)


@plugin("mt_bench")
class MtBench(Exam):
    """MT-Bench over a local copy of its questions."""

    version = 2

    path: str = ""
    """File of questions in FastChat's layout."""
    references: str = ""
    """File of reference answers in FastChat's layout; empty: those that stand in the questions (`reference`)."""
    max_new_tokens: AtLeast = 1024

    def questions(self) -> Sequence[Question]:
        """Return the questions in file order.

        Raises MissingFileError, ConfigError or DataError for a file that is missing or of another layout, for a
        category that MT-Bench does not have, and for a question of reasoning, maths or coding without a reference.
        """
        references = self._references()
        return [self._question(record, references) for record in numbered(self.path, _QUESTIONS)]

    def _references(self) -> Mapping[str, tuple[str, ...]]:
        if not self.references:
            return {}
        found: dict[str, tuple[str, ...]] = {}
        for record in numbered(self.references, _REFERENCES):
            match record:
                case {"question_id": int() | str() as name, "choices": [{"turns": list() as turns}, *_]}:
                    found[str(name)] = tuple(map(str, turns))
                case _:
                    raise _REFERENCES.wrong(self.references, f"an object with {', '.join(sorted(record))}")
        return found

    def _question(self, record: Record, references: Mapping[str, tuple[str, ...]]) -> Question:
        match record:
            case {"question_id": int() | str() as name, "category": str() as category, "turns": [str(), str()]}:
                turns, given = tuple(record["turns"]), record.get("reference")
            case _:
                raise _QUESTIONS.wrong(self.path, f"an object with {', '.join(sorted(record))}, turns of another form")
        where = f"mt_bench: {self.path}: question {name}"
        if category not in TEMPERATURES:
            raise DataError(f"{where}: found category '{category}', allowed are {', '.join(TEMPERATURES)}.")
        reference = references.get(str(name), tuple(map(str, given if isinstance(given, list) else ())))
        n_filled = sum(bool(text.strip()) for text in reference)
        if category in WITH_REFERENCE and not len(reference) == n_filled == 2:
            blank = f" and {len(reference) - n_filled} blank" if n_filled < len(reference) else ""
            raise ConfigError(
                f"{where}: of category '{category}', which is graded beside a reference answer to each turn, found "
                f"{n_filled}{blank}; {_REFERENCES.fetch}, and name it by 'references'."
            )
        return Question(str(name), turns, category, reference)

    def sampling(self, question: Question) -> Sampling:
        """Return the temperature of the question's category."""
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=TEMPERATURES[question.category])

    def judging(self) -> Sampling:
        """Return greedy judging."""
        return Sampling(max_new_tokens=2048)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return a request for each turn."""
        return [GradeRequest("turn_1", _prompt(answered, 1)), GradeRequest("turn_2", _prompt(answered, 2))]

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return the grades of both turns and their mean."""
        first, second = grade(verdicts["turn_1"]), grade(verdicts["turn_2"])
        one, two = counted(first), counted(second)
        return {"turn_1": one, "turn_2": two, "mean": one + two, UNPARSED: unparsed(first, second)}


def _prompt(answered: Answered, turn: int) -> Prompt:
    question, texts = answered.question, TEXTS["mt_bench"]
    task = f"{texts['first' if turn == 1 else 'last']} {RUBRIC}"
    if question.category not in WITH_REFERENCE:
        return asked(task, dialogue(answered, turn), GRADE)
    beside = sections("reference", question.references[:turn])
    return asked(f"{task} {texts['beside']}", dialogue(answered, turn), *beside, GRADE)
