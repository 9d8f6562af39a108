"""What a language model says of each candidate: a grade, or whether it may be learnt from without harm.

A model that grades training data: AlpaGasus (Chen et al., 2023, https://arxiv.org/abs/2307.08701, section 2), which
keeps what scores 4.5 of 5. The questions stand in `synthesis/judging.toml` and have a version.

Deviations: questions written anew, grades from 1 to 10; an answer that says nothing that can be read is a reason by
itself, never a grade.
"""

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from fedloom.base.plugin import AtLeast, Range, default, plugin
from fedloom.completers.answer_file import asking, refuse_remote
from fedloom.contracts.evaluation import Completer, Completion, Sampling
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.synthesis.judging import judge_prompts, rating, safe

__all__ = ["Judge"]


@plugin("judge")
class Judge(Filter):
    """Drops candidates that a model grades low, or calls unsafe."""

    reasons: ClassVar[tuple[str, ...]] = ("low_score", "unsafe", "unjudged")

    kind: Literal["quality", "safety"] = "quality"
    """What is asked: a grade from 1 to 10, or whether it is safe."""
    least: Annotated[float, Range(1, 10)] = 5.0
    """Least grade, for `quality`."""
    completer: Completer = field(default_factory=default(Completer, "model"))
    """Who judges."""
    max_new_tokens: AtLeast = 32
    """Most tokens of a verdict."""
    trained_on: tuple[str, ...] = ()
    """Data sets that the judge was trained on, as its card says: where a run's own data are among them it is told that
    the judge is not independent."""
    allow_remote: bool = False
    """Whether prompts, which hold the candidates, may go to another machine."""

    def check(self) -> None:
        """Refuse to show private text to another machine unasked."""
        what = "a judge is shown what was made of private data"
        refuse_remote("completer", self.completer, what, allowed=self.allow_remote)

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict and what was said for each candidate by itself; what was asked before is looked up."""
        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        requests = [(judge_prompts().prompt(self.kind, one), sampling) for one in candidates]
        with ExitStack() as stack:
            file = around.answers or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "verdicts.jsonl"
            answers = stack.enter_context(asking(self.completer, file)).ask(requests)
        return [self._verdict(answer) for answer in answers]

    def _verdict(self, answer: Completion) -> Verdict:
        score = rating(answer.text) if self.kind == "quality" else safe(answer.text)
        if score is None:
            return Verdict("unjudged")
        if self.kind == "quality":
            return Verdict("low_score" if score < self.least else "", score)
        return Verdict("" if score else "unsafe", score)

    def identity(self) -> str:
        """Return the hash of the questions and who judges."""
        return json.dumps([judge_prompts().sha256, self.completer.identity()])

    def trained_on_sets(self) -> tuple[str, ...]:
        """Return what is declared."""
        return self.trained_on

    def asks(self) -> Completer:
        """Return who judges."""
        return self.completer
