"""From a document and its examples to a prompt, and from a completion to an instruction and its response.

Documents are data: each stands between fences made of a keyed hash of it, which whoever wrote it cannot guess without
the key. That makes it harder for a document to pass for a part of the prompt, and does not exclude it.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

from fedloom.base import config
from fedloom.base.files import json_sha256
from fedloom.contracts.evaluation import Prompt
from fedloom.contracts.examples import Turn
from fedloom.contracts.synthesis import PoolRow

__all__ = ["Prompts", "fence", "parsed", "prompts"]

_PARTS = re.compile(r"\s*(?:Instructions?:)?\s*(?P<instruction>.*?)\s*^[ \t]*Response:\s*(?P<response>.*)", re.S | re.M)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The parts of a prompt, as `prompts.toml` has them."""

    version: int
    intro: str
    document: str
    answer: str
    stop: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """What the prompts are known by in records."""
        return f"sha256:{json_sha256(vars(self))}"

    def prompt(self, document: str, examples: Sequence[PoolRow], key: bytes) -> Prompt:
        """Return the conversation that a completer is asked to go on with: examples, then the document."""
        turns: list[Turn] = []
        for row in examples:
            answer = self.answer.format(instruction=row.instruction, response=row.response)
            turns += [Turn("user", self._fenced(row.document, key)), Turn("assistant", answer.strip())]
        first, *others = [*turns, Turn("user", self._fenced(document, key))]
        return (Turn("user", f"{self.intro.strip()}\n\n{first.text}"), *others)

    def _fenced(self, document: str, key: bytes) -> str:
        return self.document.format(fence=fence(document, key), document=document).strip()


@cache
def prompts() -> Prompts:
    """Return the prompts that ship in the package."""
    return config.build(Prompts, config.read_toml(Path(__file__).with_name("prompts.toml")))


def fence(document: str, key: bytes) -> str:
    """Return the word that fences a document, which stands nowhere in it."""
    messages = (f"{number}\n{document}".encode(errors="replace") for number in count())
    marks = (hmac.new(key, message, hashlib.sha256).hexdigest()[:16] for message in messages)
    return next(mark for mark in marks if mark not in document)


def parsed(text: str) -> tuple[str, str] | None:
    r"""Return the instruction and the response of a completion; None where it does not hold exactly one of each.

    >>> parsed(" What is sold?\nResponse: Bread.")
    ('What is sold?', 'Bread.')
    >>> parsed("What is sold?") is None
    True
    """
    found = _PARTS.fullmatch(text)
    if found is None or re.search(r"^[ \t]*(?:Instructions?|Response):", found["response"], re.M):
        return None
    instruction, response = found["instruction"].strip(), found["response"].strip()
    return (instruction, response) if instruction and response else None
