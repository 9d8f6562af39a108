"""A new instruction after three public ones, its response to be written apart.

Self-Instruct (Wang et al., 2022, https://arxiv.org/abs/2212.10560, section 2.2, its first stage) with three
instructions, as in KnowledgeSG's baselines (https://arxiv.org/abs/2410.05725, section 4.1).

Deviations: seeds are public and stay the same; instructions that were written are not shown to later requests, so that
no request depends on another's answer.
"""

import re
from collections.abc import Sequence

from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.synthesis import Ask, PoolRow, Questioner
from fedloom.synthesis.questioning import questioning, shown

__all__ = ["SelfInstruct"]

_NUMBER = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+")


@plugin("self_instruct")
class SelfInstruct(Questioner):
    """Asks for one more instruction."""

    examples: AtLeast = 3
    """Seeds that each request shows."""

    @property
    def shows(self) -> int:
        """Seeds that it needs at least."""
        return self.examples

    def asks(self, seeds: Sequence[PoolRow], count: int, seed: int) -> list[Ask]:
        """Return as many requests, each with seeds of its own."""
        form = questioning().self_instruct
        found: list[Ask] = []
        for rows in shown(seeds, self.examples, count, seed):
            lines = [form.example.format(number=at, instruction=row.instruction) for at, row in enumerate(rows, 1)]
            found.append(Ask((Turn("user", form.ask.format(examples="\n".join(lines)).strip()),), rows))
        return found

    def read(self, text: str) -> tuple[str, str]:
        """Return the first line without its number, and no response."""
        line = next((line for line in text.splitlines() if line.strip()), "")
        return _NUMBER.sub("", line).strip(), ""
