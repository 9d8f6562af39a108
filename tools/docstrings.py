"""Docstrings as the site shows them: examples as code, shapes as they stand; an extension of griffe, for mkdocs."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*)", re.MULTILINE)
_BRACKET = re.compile(r"(?<!`)\[(?=[^\]`]*\](?:\[|\())")


def shown(text: str) -> str:
    """Return a docstring whose examples are fenced, and whose brackets beside brackets make no link."""
    parts, at = list[str](), 0
    for example in _EXAMPLE.finditer(text):
        parts += [_BRACKET.sub(r"\\[", text[at : example.start()]), f"```python\n{example[0].rstrip()}\n```\n"]
        at = example.end()
    return "".join([*parts, _BRACKET.sub(r"\\[", text[at:])])


class Docstrings(griffe.Extension):
    """What griffe calls for every object that it has read."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the object's docstring."""
        if obj.docstring:
            obj.docstring.value = shown(obj.docstring.value)
