"""Questions of the controlled world, whose answers are known: an examination that needs no download.

Source: the tests of `fedloom.world`, all in wordings that no training text has; categories are its domains. With `talk`
each question is a public conversation of two turns, the second of which may lean on the first.

Scores: `correct`, 1 where the answer to the last turn says the reference (the metric `exact_match`); where there is a
judge, `grade`, 1 to 10 beside the references, with `unparsed`.

Deviations: none; nobody else has published it.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, Count, lookup, plugin
from fedloom.contracts.evaluation import Answered, Exam, GradeRequest, Metric, Question, Sampling
from fedloom.contracts.examples import Chat, chat
from fedloom.contracts.model import Prediction
from fedloom.judged.exams._prompts import GRADE, TEXTS, asked, dialogue, sections
from fedloom.judged.exams._verdicts import graded
from fedloom.world import World

__all__ = ["WorldExam"]


@plugin("world_exam")
class WorldExam(Exam):
    """A test of the controlled world."""

    version = 2
    needs_judge = False

    seed: Count = 0
    """Seed of the world, as in the run."""
    test: Literal["private", "public", "safety", "entities", "talk"] = "private"
    per_task: AtLeast = 40
    """Questions of each task; of `talk` so many conversations in all, of `private` it has all facts in any case."""
    max_new_tokens: AtLeast = 16

    def questions(self) -> Sequence[Question]:
        """Return the questions, the same for a seed."""
        return [_question(example, index) for index, example in enumerate(self._examples())]

    def _examples(self) -> Sequence[Chat]:
        world = World(self.seed)
        if self.test != "talk":
            return world.test(self.test, per_task=self.per_task)
        talks = world.multi_turn(4 * self.per_task, split="test")
        return [example for example in talks if len(example.turns) == 4][: self.per_task]

    def sampling(self, question: Question) -> Sampling:
        """Return greedy answers."""
        return Sampling(max_new_tokens=self.max_new_tokens)

    def requests(self, answered: Answered, other: Answered | None) -> Sequence[GradeRequest]:
        """Return one request, put where there is a judge."""
        shown = dialogue(answered, len(answered.answers)), *sections("reference", answered.question.references)
        return [GradeRequest("grade", asked(TEXTS["world_exam"]["task"], *shown, GRADE))]

    def scores(self, answered: Answered, verdicts: Mapping[str, str]) -> Mapping[str, Mean]:
        """Return whether the last answer is right, and the grade where there is a verdict."""
        question = answered.question
        example = chat(question.turns[-1], question.references[-1])
        scores = {"correct": lookup(Metric, "exact_match")()(example, Prediction(answered.answers[-1], 0))}
        if "grade" not in verdicts:
            return scores
        return scores | graded(verdicts, "grade")


def _question(example: Chat, index: int) -> Question:
    asked = tuple(turn.text for turn in example.turns if turn.role == "user")
    answers = tuple(turn.text for turn in example.turns if turn.role == "assistant")
    return Question(str(index), asked, example.tags["domain"], answers, example.tags)
