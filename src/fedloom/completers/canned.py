"""Answers that are known beforehand: for tests, and for replaying what was recorded.

A file holds a JSON object a line: `prompt`, the text of the last turn or all turns as [role, text] pairs, and `text`,
the answer; `refused` tells why there is none. A file of answers written by `answer_file` is one of these. The whole
conversation is looked up first, then the last turn among the file's texts and `answers`, then `patterns` in order.
"""

import contextlib
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any

from fedloom.base.errors import CompletionError, ConfigError, DataError, MissingFileError
from fedloom.base.files import json_sha256
from fedloom.base.plugin import plugin
from fedloom.contracts.evaluation import Answer, Completer, Completion, Prompt, Sampling

__all__ = ["Canned"]

_LAYOUT = 'allowed are lines like {"prompt": "a question", "text": "its answer"}'


@plugin("canned")
class Canned(Completer):
    """A fixed list of answers."""

    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The text of the last turn -> the answer."""
    patterns: Mapping[str, str] = field(default_factory=dict[str, str])
    """A regular expression found anywhere in the last turn -> the answer."""
    path: str = ""
    """A JSON Lines file of further answers."""

    def check(self) -> None:
        """Refuse patterns that are none."""
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"patterns: '{pattern}' is no regular expression: {error}.") from error

    def identity(self) -> str:
        """Return a hash of all answers."""
        content = [dict(self.answers), list(self.patterns.items()), self._content()]
        return f"canned sha256:{json_sha256(content)}"

    @contextlib.contextmanager
    def opened(self) -> Generator[Answer]:
        """Read the file, if there is one; a malformed line, or two answers to one prompt, are refused."""
        yield partial(_answers, self._known(), [(re.compile(key), text) for key, text in self.patterns.items()])

    def _content(self) -> str:
        if not self.path:
            return ""
        try:
            return Path(self.path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise MissingFileError(f"{self.path}: no such file of answers; give a JSON Lines file.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: is no UTF-8 text ({error.reason}); save it as UTF-8.") from error

    def _known(self) -> dict[str, Completion]:
        known = {json.dumps(text): Completion(answer) for text, answer in self.answers.items()}
        for number, line in enumerate(self._content().split("\n"), 1):
            if line.strip():
                key, answer = _parsed(line, f"{self.path}: line {number}")
                if known.setdefault(key, answer) != answer:
                    raise DataError(
                        f"{self.path}: line {number} answers a prompt in another way than before; keep one."
                    )
        return known


def _parsed(line: str, where: str) -> tuple[str, Completion]:
    """Return what a line's prompt is looked up by, and its answer."""
    try:
        record: Any = json.loads(line)
        prompt, text, refused = record["prompt"], record["text"], record.get("refused", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where} is no answer; {_LAYOUT}.") from error
    if not isinstance(prompt, str | list) or not isinstance(text, str) or not isinstance(refused, str):
        raise DataError(f"{where} has a prompt or text of another kind; {_LAYOUT}.")
    return json.dumps(prompt), Completion(text, refused=refused)


def _answers(
    known: Mapping[str, Completion],
    patterns: Sequence[tuple[re.Pattern[str], str]],
    prompts: Sequence[Prompt],
    _: Sampling,
    __: Sequence[int] = (),
) -> Iterator[tuple[int, Completion]]:
    for place, prompt in enumerate(prompts):
        asked = prompt[-1].text
        fitting = [Completion(text) for pattern, text in patterns if pattern.search(asked)]
        keys = [json.dumps([[turn.role, turn.text] for turn in prompt]), json.dumps(asked)]
        answer = next((one for one in [*map(known.get, keys), *fitting] if one is not None), None)
        if answer is None:
            raise CompletionError(f"canned: no answer is listed for the prompt {asked[:60]!r}; add it or a pattern.")
        yield place, answer
