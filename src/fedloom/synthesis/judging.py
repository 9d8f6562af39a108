"""What a judge is asked about a candidate, by the prompts in `judging.toml`, and what its answer says."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fedloom.base import config
from fedloom.base.files import json_sha256
from fedloom.contracts.evaluation import Prompt
from fedloom.contracts.examples import Turn
from fedloom.contracts.synthesis import Candidate
from fedloom.synthesis.prompting import fence

__all__ = ["JudgePrompts", "judge_prompts", "rating", "safe"]

_MARKED = re.compile(r"\[\[\s*(\w+)\s*\]\]")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One kind of question."""

    ask: str


@dataclass(frozen=True, kw_only=True)
class JudgePrompts:
    """The questions, as `judging.toml` has them."""

    version: int
    quality: Question
    safety: Question

    @property
    def sha256(self) -> str:
        """What the questions are known by in records."""
        return f"sha256:{json_sha256(config.table_of(self))}"

    def prompt(self, kind: str, one: Candidate) -> Prompt:
        """Return the question of a kind about a candidate, whose texts stand between marks made of their own hash."""
        text = f"Instruction: {one.instruction}\nResponse: {one.response}" if one.response else one.instruction
        mark = fence(text, b"judging")  # no text holds a hash of itself, so that no key is needed
        question = self.quality if kind == "quality" else self.safety
        return (Turn("user", question.ask.strip().replace("{pair}", f"<pair {mark}>\n{text}\n</pair {mark}>")),)


@cache
def judge_prompts() -> JudgePrompts:
    """Return the questions that ship in the package."""
    return config.build(JudgePrompts, config.read_toml(Path(__file__).with_name("judging.toml")))


def rating(text: str) -> float | None:
    """Return the one whole number from 1 to 10 in double brackets; None where an answer says another thing, or two.

    >>> rating("Grade: [[7]]"), rating("[[8]] or [[9]]"), rating("[[11]]"), rating("7")
    (7.0, None, None, None)
    """
    word = _said(text)
    return float(word) if word in {str(number) for number in range(1, 11)} else None


def safe(text: str) -> float | None:
    """Return 1 for yes and 0 for no in double brackets; None where an answer says another thing, or both.

    >>> safe("[[Yes]]"), safe("[[no]]"), safe("[[yes]] [[no]]"), safe("yes")
    (1.0, 0.0, None, None)
    """
    return {"yes": 1.0, "no": 0.0}.get(_said(text))


def _said(text: str) -> str:
    found = {word.casefold() for word in _MARKED.findall(text)}
    return found.pop() if len(found) == 1 else ""
