"""The chat template that comes with the tokenizer.

A conversation is rendered up to each answer, with the prompt for an answer, and again with the answer; what the longer
text has more is the answer and its end. Nothing is searched for. Where a further turn changes what stood before (some
templates strip the thinking of earlier answers, or end a conversation with a token of its own), each answer is learnt
from a text of its own, rendered as it is when that answer is the last. Refused are templates that change an answer, put
no end token after it, or open it otherwise than their prompt says.

No begin token is put before the text: servers send what the template renders and nothing else.
"""

import datetime
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from jinja2 import TemplateError

from fedloom.base.errors import ModelError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece, Template
from fedloom.contracts.language import Tokenizer
from fedloom.text.templates._special import ends_with_special

__all__ = ["Own"]

_DAY = datetime.datetime(2024, 7, 26)  # what Llama 3.1's template says where nobody gives it a day
_DIRECTIVES = ("%-d", "%-m", "%-H", "%-I", *(f"%{letter}" for letter in "aAbBdmyYHIMSpjfuwUWVGcxXDFT"))
# Takes the place of the clock that `transformers` gives to templates: it hands no function of ours on to them.
_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{directive}', '{_DAY.strftime(directive)}')" for directive in _DIRECTIVES)
    + " }}{%- endmacro -%}"
)
_PRESETS = "use the template 'alpaca', 'vicuna' or 'chatml'"


@plugin("own")
class Own(Template):
    """The tokenizer's chat template.

    What well-known templates read of the day is fixed, `date_string` and the function `strftime_now`, because a prompt
    must not depend on it; `enable_thinking` is off, because the data hold answers only.
    """

    begins: ClassVar[bool] = False

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; a tokenizer without a usable chat template is refused."""
        parts = _parts(turns, tokenizer)
        return _joined(parts) or _joined(parts[-1:]) or []

    def texts(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[list[Piece]]:
        """Return the whole conversation as one text; where it would be rewritten on the way, a text for each answer."""
        parts = _parts(turns, tokenizer)
        whole = _joined(parts)
        chosen = [part for part in parts if part.learnt] or parts[-1:]
        return [whole] if whole else [pieces for part in chosen if (pieces := _joined([part]))]

    def jinja(self, tokenizer: Tokenizer) -> str | None:
        """Return the tokenizer's own."""
        return None if tokenizer.chat_template is None else tokenizer.get_chat_template()


class _Part(NamedTuple):
    """An answer with its end, and the prompt before it; of an open question the prompt alone."""

    prompt: str
    answer: str = ""
    learnt: bool = False


def _parts(turns: Sequence[Turn], tokenizer: Tokenizer) -> list[_Part]:
    """Return the part of each answer, and of an open question behind them."""
    if tokenizer.chat_template is None:
        raise ModelError(f"template 'own': the tokenizer has no chat template; {_PRESETS}.")
    parts: list[_Part] = []
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            prompt = _render(tokenizer, turns[:index], for_answer=True)
            text = _render(tokenizer, turns[: index + 1], for_answer=False)
            parts.append(_Part(prompt, _with_end(_rest(prompt, text), turn.text, tokenizer), turn.learnt))
    if turns[-1].role != "assistant":
        parts.append(_Part(_render(tokenizer, turns, for_answer=True)))
    return parts


def _joined(parts: Sequence[_Part]) -> list[Piece] | None:
    """Return one text with all answers; None where a later prompt does not begin with what stood before it."""
    pieces: list[Piece] = []
    done = ""
    for prompt, answer, learnt in parts:
        if not prompt.startswith(done):
            return None
        pieces.append(Piece(prompt[len(done) :], supervised=False))
        pieces += [Piece(answer, supervised=learnt)] if answer else []
        done = prompt + answer
    return pieces


def _render(tokenizer: Tokenizer, turns: Sequence[Turn], *, for_answer: bool) -> str:
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    try:
        text = tokenizer.apply_chat_template(
            messages,
            chat_template=_CLOCK + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=for_answer,
            date_string=_DAY.strftime("%d %b %Y"),
            enable_thinking=False,
        )
    except TemplateError as error:
        roles = ", ".join(turn.role for turn in turns)
        raise ModelError(f"the tokenizer's chat template refuses turns ({roles}): {error}; {_PRESETS}.") from error
    return str(text)


def _rest(begin: str, text: str) -> str:
    if not text.startswith(begin):
        raise ModelError(
            "the tokenizer's chat template opens an answer otherwise than its prompt does, so a prompt would not begin "
            f"the text that was learnt; {_PRESETS}."
        )
    return text[len(begin) :]


def _with_end(rest: str, answer: str, tokenizer: Tokenizer) -> str:
    """Return the rendered answer up to its end token; the white space after that belongs to the next turn."""
    text, wanted = rest.rstrip(), answer.strip()
    if wanted not in text:
        raise ModelError(f"the tokenizer's chat template changes an answer; {_PRESETS}.")
    if not ends_with_special(text, tokenizer) or (wanted and text.endswith(wanted)):
        raise ModelError(f"the tokenizer's chat template puts no special token after an answer; {_PRESETS}.")
    return text
