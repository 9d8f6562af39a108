"""A new instruction after three public ones, its response to be written apart.

Self-Instruct (Wang et al., 2022, https://arxiv.org/abs/2212.10560, section 2.2, its first stage) with three
instructions, as in KnowledgeSG's baselines (https://arxiv.org/abs/2410.05725, section 4.1).

Deviations: seeds are public and stay the same; instructions that were written are not shown to later requests, so that
no request depends on another's answer.
"""

import re
from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import PoolRow
from fedloom.synthesis.questioners._showing import Showing
from fedloom.synthesis.questioning import questioning

__all__ = ["SelfInstruct"]

_NUMBER = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+")


@plugin("self_instruct")
class SelfInstruct(Showing):
    """Asks for one more instruction."""

    def text(self, rows: Sequence[PoolRow]) -> str:
        """Return the request: a numbered list of the seeds' instructions."""
        form = questioning().self_instruct
        lines = [form.example.format(number=at, instruction=row.instruction) for at, row in enumerate(rows, 1)]
        return form.ask.format(examples="\n".join(lines))

    def read(self, text: str) -> tuple[str, str]:
        """Return the first line without its number, and no response."""
        line = next((line for line in text.splitlines() if line.strip()), "")
        return _NUMBER.sub("", line).strip(), ""
