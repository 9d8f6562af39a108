"""A new example in the form of three public ones: instruction and response at once.

The in-context generation of KnowledgeSG's baselines (https://arxiv.org/abs/2410.05725, section 4.1): three examples as
blocks, of which one more is asked for; what lacks a field, or holds a header in one, is no example.

Deviations: examples are public seeds, never private records: what is shown to the server has left its owner. An example
too like one of those shown is dropped by the filter `demonstration`.
"""

from collections.abc import Sequence

from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import PoolRow
from fedloom.synthesis.questioners._showing import Showing
from fedloom.synthesis.questioning import questioning

__all__ = ["Icl"]


@plugin("icl")
class Icl(Showing):
    """Asks for one more example."""

    drafts = True

    def text(self, rows: Sequence[PoolRow]) -> str:
        """Return the request: seeds as blocks, and the beginning of one more."""
        form = questioning().icl
        blocks = [form.example.format(instruction=row.instruction, response=row.response).strip() for row in rows]
        return form.ask.format(examples="\n".join(blocks))

    def read(self, text: str) -> tuple[str, str]:
        """Return instruction and response; blanks where a field is missing, or holds a header."""
        form = questioning().icl
        text = text.strip()
        for header in form.headers[:2]:  # a model may begin the block anew
            text = text.removeprefix(header).strip()
        instruction, found, response = (part.strip() for part in text.partition(form.output))
        leaked = any(header in part for header in form.headers for part in (instruction, response))
        return (instruction, response) if found and instruction and response and not leaked else ("", "")
