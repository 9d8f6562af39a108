"""Wordings: how a question is put. A wording is opener + core + closer; the core decides which split it belongs to.

A core is a template such as `(what|which) illness does {x} treat?`: `(a|b)` is a choice, `{x}` a value. Every task has
three disjoint sets of cores. Training text of any kind uses only `train` cores; `valid` and `test` cores never occur in
it, in no choice of their alternatives, although each of their words does.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from fedloom.base.errors import DataError
from fedloom.contracts.examples import Chat, chat
from fedloom.world.words import PHRASES, table

__all__ = ["STYLES", "WORDINGS", "Question", "Split", "Style", "Wordings", "expand", "phrase", "sentence", "unfold"]

Split = Literal["train", "valid", "test"]

_CHOICE = re.compile(r"\(([^()]*)\)")


def sentence(answer: str) -> str:
    """Return the answer as a whole sentence."""
    return PHRASES["sentence"].format(answer=answer)


def expand(core: str, random: Random) -> str:
    """Return `core` with one alternative drawn for each `(a|b)`."""
    return _CHOICE.sub(lambda match: random.choice(match[1].split("|")), core)


def unfold(core: str) -> Iterator[str]:
    """Yield `core` with every combination of its alternatives.

    >>> list(unfold("(copy|say) it (again|twice)"))
    ['copy it again', 'copy it twice', 'say it again', 'say it twice']
    """
    pieces = _CHOICE.split(core)
    choices = [piece.split("|") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ("".join(parts) for parts in itertools.product(*choices))


@dataclass(frozen=True, slots=True)
class Wordings:
    """The cores of one task, by split."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """Return the cores of `split`."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]


@dataclass(frozen=True, slots=True)
class Style:
    """How someone asks: what comes before and after the core, and how often a whole sentence is wanted back."""

    name: str
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    sentence_share: float
    """Share of questions that end with the wish for a sentence; only those are answered with one."""
    weight: float
    """How often public text is in this style."""


WORDINGS: Mapping[str, Wordings] = {name: Wordings(**cores) for name, cores in table("wordings").items()}
"""The cores by task; those of a relation and of an intent by its name."""
STYLES: Mapping[str, Style] = {name: Style(name, **manner) for name, manner in PHRASES["styles"].items()}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before it is worded: the wordings to choose from, the values to fill in, the right answer."""

    domain: str
    task: str
    wordings: Wordings
    values: Mapping[str, str]
    answer: str
    tags: Mapping[str, str]
    lead: str = ""
    """Text that stands before the core, as the note of a reading question."""


def _misspell(text: str, random: Random) -> str:
    """Return `text` with two neighbouring letters swapped inside one of its longer words, values left alone."""
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if word.isalpha() and len(word) > 3]
    if not long:
        return text
    index = random.choice(long)
    word = words[index]
    at = random.randrange(1, len(word) - 2)
    words[index] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def phrase(
    question: Question, random: Random, *, split: Split, style: str = "plain", typo_rate: float = 0.0, core: int = -1
) -> Chat:
    """Return the question as a Chat in a wording of `split`; `core` names one core, else it is drawn."""
    cores = question.wordings.of(split)
    if not cores:
        raise DataError(f"task '{question.task}' has no wordings for '{split}', allowed are splits with cores.")
    manner = STYLES[style]
    text = expand(cores[core % len(cores)] if core >= 0 else random.choice(cores), random)
    if random.random() < typo_rate:
        text = _misspell(text, random)
    text = text.format_map(question.values)
    if text[-1] not in ".?!":
        text += "."
    wants_sentence = random.random() < manner.sentence_share and question.domain != "safety"
    closer = random.choice(PHRASES["sentence_closers"] if wants_sentence else manner.closers)
    answer = sentence(question.answer) if wants_sentence else question.answer
    words = " ".join(part for part in (random.choice(manner.openers), question.lead, text, closer) if part)
    tags = {"domain": question.domain, "task": question.task, "topic": question.task, "language": "plain"}
    tags |= {"split": split, "style": style, "form": "sentence" if wants_sentence else "short", **question.tags}
    return chat(words, answer, **tags)
