"""Prompts that a language model writes, class by class: diverse words without templates of one's own."""

import tempfile
from contextlib import ExitStack
from dataclasses import field
from pathlib import Path

from fedloom.base import rng
from fedloom.base.errors import CompletionError
from fedloom.base.plugin import AtLeast, NonNegative, default, plugin
from fedloom.completers.answer_file import asking, refuse_remote
from fedloom.contracts.evaluation import Completer, Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.generation import Place, Prompter
from fedloom.synthesis.prompters.templates import check_template

__all__ = ["Written"]


@plugin("written")
class Written(Prompter):
    """A language model's descriptions of each class, several of which are used again for large budgets."""

    completer: Completer = field(default_factory=default(Completer, "model"))
    """Who writes them; it is told the class and nothing private."""
    ask: str = "Describe in one line a picture of {label}, with its scene, style and point of view."
    """What it is asked, with {label} in it."""
    most: AtLeast = 20
    """Descriptions of a class."""
    temperature: NonNegative = 1.0
    """Of what it writes."""
    max_new_tokens: AtLeast = 48
    """Tokens of a description at most."""
    allow_remote: bool = False
    """Whether the names of the classes may go to another machine."""

    def check(self) -> None:
        """Refuse a question without its class, and a stranger."""
        check_template("ask", self.ask, {"label"})
        refuse_remote("completer", self.completer, "the names of the classes go there", allowed=self.allow_remote)

    def identity(self) -> str:
        """Return who writes them."""
        return self.completer.identity()

    def __call__(self, label: str, count: int, seed: int, place: Place) -> list[str]:
        """Return descriptions, in turn; empty ones are left out. CompletionError where all are."""
        prompt = (Turn("user", self.ask.format(label=label)),)
        requests = [(prompt, self._sampling(rng.seed_of("prompts", seed, label, at))) for at in range(self.most)]
        with ExitStack() as stack:
            folder = place.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with asking(self.completer, folder / "prompts.jsonl") as asker:
                answers = asker.ask(requests[: max(1, min(count, self.most))])
        texts = [" ".join(answer.text.split()) for answer in answers if answer.text.strip()]
        if not texts and count:
            raise CompletionError(f"prompts: '{self.completer.name}' wrote nothing about class '{label}'; ask another.")
        return [texts[at % len(texts)] for at in range(count)]

    def _sampling(self, seed: int) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed % 2**31 if self.temperature else 0,
        )
