"""A template as a record of strings, which the presets fill in and a user's TOML file may fill in too.

`{text}` stands for the text of a turn and `{eos}` for the tokenizer's own end token. A blank before the `{text}` of an
answer belongs to the answer: it is predicted, and a prompt ends before it, because most tokenizers join a blank to the
word that follows.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedloom.base.errors import ConfigError, ModelError
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece
from fedloom.contracts.language import Tokenizer
from fedloom.text.masks import begin_text
from fedloom.text.templates._special import end_of_text, is_special

__all__ = ["Format"]

_TEXT = "{text}"
_JINJA = """
{%- if messages[0].role == "system" -%}
{%- set turns = messages[1:] -%}{{- begin + system_before + messages[0].content + system_after -}}
{%- else -%}
{%- set turns = messages -%}{{- begin + preamble -}}
{%- endif -%}
{%- for turn in turns -%}
{%- if turn.role == "assistant" -%}{{- before + turn.content + after -}}
{%- elif turn.role == "user" -%}
{{- (separator if not loop.first else "") + user_before + turn.content + user_after -}}
{{- opening if add_generation_prompt or not loop.last else "" -}}
{%- else -%}{{- raise_exception("this template has no form for a turn of " + turn.role) -}}
{%- endif -%}
{%- endfor -%}
""".replace("\n", "")


@dataclass(frozen=True, kw_only=True)
class Format:
    """How each kind of turn is written; a conversation is the joined text of its turns."""

    user: str
    """A user turn."""
    assistant: str
    """An answer, without its end."""
    preamble: str = ""
    """What opens a conversation without a system turn."""
    system: str = _TEXT
    """What opens a conversation with a system turn."""
    separator: str = ""
    """What stands between the end of an answer and the next user turn."""
    end: str = "{eos}"
    """What ends an answer: one special token of the tokenizer, so that generation can stop at it."""

    def __post_init__(self) -> None:
        for name, text in (("system", self.system), ("user", self.user), ("assistant", self.assistant)):
            if text.count(_TEXT) != 1:
                raise ConfigError(f"{name}: found {text!r}, allowed is a text that contains '{_TEXT}' once.")

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the conversation in pieces; the answers that are learnt, with their ends, are supervised."""
        return list(self._pieces(turns, self._end_token(tokenizer)))

    def jinja(self, tokenizer: Tokenizer) -> str:
        """Return the chat template of `transformers` that writes the same text, the begin token that is habit included.

        `add_generation_prompt` opens an answer; roles other than system, user and assistant are refused by it, too.
        """
        before, after = self.assistant.split(_TEXT)
        opening = before.rstrip(" ")
        system, user = (pattern.split(_TEXT) for pattern in (self.system, self.user))
        words = {
            "begin": begin_text(tokenizer),
            "preamble": self.preamble,
            "separator": self.separator,
            "opening": opening,
            "before": before[len(opening) :],
            "after": after + self._end_token(tokenizer),
            **dict(zip(("system_before", "system_after", "user_before", "user_after"), system + user, strict=True)),
        }
        told = "".join(f"{{%- set {name} = {json.dumps(text, ensure_ascii=False)} -%}}" for name, text in words.items())
        return told + _JINJA

    def _pieces(self, turns: Sequence[Turn], end: str) -> Iterator[Piece]:
        has_system = bool(turns) and turns[0].role == "system"
        yield Piece(_fill(self.system, turns[0].text) if has_system else self.preamble, supervised=False)
        before, after = self.assistant.split(_TEXT)
        prompt_end = before.rstrip(" ")
        for index, turn in enumerate(turns[has_system:]):
            if turn.role == "tool":
                raise ModelError(
                    "a tool speaks in a conversation, for which this template has no form; take a model whose own "
                    "chat template has one, with the template 'own', or leave such records out."
                )
            if turn.role == "assistant":
                yield Piece(f"{before[len(prompt_end) :]}{turn.text}{after}{end}", supervised=turn.learnt)
            else:
                gap = self.separator if index else ""
                yield Piece(f"{gap}{_fill(self.user, turn.text)}{prompt_end}", supervised=False)

    def _end_token(self, tokenizer: Tokenizer) -> str:
        eos = end_of_text(tokenizer)
        if "{eos}" in self.end and eos is None:
            raise ModelError("the tokenizer has no end-of-text token, the template needs one: set its eos_token.")
        end = self.end.replace("{eos}", eos or "")
        if not is_special(end, tokenizer):
            raise ModelError(
                f"the end of an answer {end!r} is no special token of the tokenizer, so generation could not stop at "
                "it: use the template 'own', 'alpaca' or 'vicuna', or add the token to the tokenizer."
            )
        return end


def _fill(pattern: str, text: str) -> str:
    return pattern.replace(_TEXT, text)
