"""Text by topic: a completer is asked for an instruction and its response about a class, in the words of a prompt.

A private conversation that guides stands in the prompt as an example. With `label` the completion is the text of a
class, as a tweet of a mood is, and the pair asks for the class.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import field
from pathlib import Path

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import AtLeast, Fraction, NonNegative, default, plugin
from fedloom.completers.answer_file import asking, bytes_sent
from fedloom.contracts.evaluation import Completer, Prompt, Sampling
from fedloom.contracts.examples import Chat, Turn
from fedloom.contracts.generation import ORIGIN, Generated, Generator, Place, Request
from fedloom.synthesis.prompting import parsed

__all__ = ["Topics"]

_FILE = "answers.jsonl"


@plugin("topics")
class Topics(Generator):
    """Conversations by a completer."""

    makes = (Chat,)
    text_guided = True
    data_guided = True

    completer: Completer = field(default_factory=default(Completer, "model"))
    """Who writes."""
    by: str = "topic"
    """Tag of the class."""
    label: str = ""
    """What is asked of a text, with {text} in it, where its class is the response; left out: the completer writes an
    instruction and, on a line that begins with `Response:`, its response."""
    temperature: NonNegative = 1.0
    """Of what it writes."""
    top_p: Fraction = 1.0
    """Share of probability of which tokens are drawn."""
    max_new_tokens: AtLeast = 128
    """Tokens at most."""

    def check(self) -> None:
        """Refuse a question without a place for the text."""
        if self.label and "{text}" not in self.label:
            raise ConfigError(f"label: found '{self.label}', allowed is a text with {{text}} in it.")

    def identity(self) -> str:
        """Return who writes."""
        return self.completer.identity()

    def remote(self) -> str:
        """Return the completer's host."""
        return self.completer.remote()

    def __call__(self, requests: Sequence[Request], place: Place) -> Generated:
        """Return what was written, None for what is no pair."""
        with ExitStack() as stack:
            folder = place.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with asking(self.completer, folder / _FILE) as asker:
                answers = asker.ask([(self._prompt(one), self._sampling(one)) for one in requests])
            sent = bytes_sent([(self.completer, folder / _FILE)])
        samples = [self._chat(one, answer.text) for one, answer in zip(requests, answers, strict=True)]
        return Generated(samples, sum(one.prompt_tokens + one.n_tokens for one in answers), sent)

    def _sampling(self, request: Request) -> Sampling:
        seed = request.seed % 2**31 if self.temperature else 0
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=seed)

    def _prompt(self, request: Request) -> Prompt:
        asked = Turn("user", request.prompt)
        if request.guide is None:
            return (asked,)
        if not isinstance(request.guide, Chat):
            raise DataError(f"generator 'topics': a guide is a {type(request.guide).__name__}, allowed are chats.")
        question, answer = request.guide.prompt[-1].text, request.guide.reference
        return asked, Turn("assistant", question if self.label else f"{question}\nResponse: {answer}"), asked

    def _chat(self, request: Request, text: str) -> Chat | None:
        tags = {self.by: request.label, ORIGIN: "generated"}
        if self.label:
            written = (self.label.replace("{text}", text.strip()), request.label) if text.strip() else None
        else:
            written = parsed(text)
        return Chat((Turn("user", written[0]), Turn("assistant", written[1])), tags) if written else None
