"""What the judges' prompts share: marked sections, dialogues, the request for a grade.

Texts of others stand between marks and are called material, so that an answer that gives orders to the judge is read
as an answer. The texts themselves stand in `prompts.toml`.
"""

from collections.abc import Sequence
from pathlib import Path

from fedloom.base.config import read_toml
from fedloom.contracts.evaluation import Answered, Prompt
from fedloom.contracts.examples import Turn

__all__ = ["GRADE", "RUBRIC", "TEXTS", "asked", "dialogue", "section", "sections"]

TEXTS = read_toml(Path(__file__).with_name("prompts.toml"))
"""What judges are told, by exam and name; under `every` what several tell."""

RUBRIC, GRADE = TEXTS["every"]["rubric"], TEXTS["every"]["grade"]


def asked(*paragraphs: str) -> Prompt:
    """Return what a judge is asked: the common system turn and the paragraphs."""
    return (Turn("system", TEXTS["every"]["system"]), Turn("user", "\n\n".join(paragraphs)))


def section(name: str, text: str) -> str:
    """Return a text between marks, each on a line of its own."""
    return f"<{name}>\n{text}\n</{name}>"


def sections(name: str, texts: Sequence[str]) -> list[str]:
    """Return each text as a section, numbered from 1."""
    return [section(f"{name}_{number}", text) for number, text in enumerate(texts, 1)]


def dialogue(answered: Answered, turns: int) -> str:
    """Return the first turns of a dialogue, each question and each answer a numbered section."""
    sides = sections("question", answered.question.turns[:turns]), sections("answer", answered.answers[:turns])
    return "\n\n".join(part for pair in zip(*sides, strict=True) for part in pair)
