"""The chat template that comes with the tokenizer.

A conversation is rendered up to each answer, with the prompt for an answer, and again with the answer; what the longer
text has more is the answer and its end. Nothing is searched for. That the shorter text begins the longer one is
checked, for templates exist that rewrite earlier turns; they are refused, as are templates that change an answer or put
no end token after it.
"""

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from fedloom.contracts import Piece, Template
from fedloom.errors import ModelError
from fedloom.examples import Turn
from fedloom.plugin import plugin
from fedloom.templates._special import ends_with_special

__all__ = ["Own"]

_PRESETS = "use the template 'alpaca', 'vicuna' or 'chatml'"


@plugin("own")
class Own(Template):
    """The tokenizer's chat template.

    Two variables that well-known templates read are fixed: `date_string`, because a prompt must not depend on the day,
    and `enable_thinking`, which is off, because the data hold answers only.
    """

    def pieces(self, turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
        """Return the text in pieces; a tokenizer without a usable chat template is refused."""
        if tokenizer.chat_template is None:
            raise ModelError(f"template 'own': the tokenizer has no chat template; {_PRESETS}.")
        result: list[Piece] = []
        done = ""
        for index, turn in enumerate(turns):
            if turn.role == "assistant":
                prompt = _render(tokenizer, turns[:index], for_answer=True)
                text = _render(tokenizer, turns[: index + 1], for_answer=False)
                answer = _with_end(_rest(prompt, text), turn.text, tokenizer)
                result += [Piece(_rest(done, prompt), supervised=False), Piece(answer, supervised=True)]
                done = prompt + answer
        if turns[-1].role != "assistant":
            result.append(Piece(_rest(done, _render(tokenizer, turns, for_answer=True)), supervised=False))
        return result


def _render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, for_answer: bool) -> str:
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=for_answer,
            date_string="26 Jul 2024",
            enable_thinking=False,
        )
    except TemplateError as error:
        roles = ", ".join(turn.role for turn in turns)
        raise ModelError(f"the tokenizer's chat template refuses turns ({roles}): {error}; {_PRESETS}.") from error
    return str(text)


def _rest(begin: str, text: str) -> str:
    if not text.startswith(begin):
        raise ModelError(
            "the tokenizer's chat template rewrites earlier text when a turn is added, so a prompt would not begin "
            f"the text that was learnt; {_PRESETS}."
        )
    return text[len(begin) :]


def _with_end(rest: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the rendered answer up to its end token; the white space after that belongs to the next turn."""
    text, wanted = rest.rstrip(), answer.strip()
    if wanted not in text:
        raise ModelError(f"the tokenizer's chat template changes an answer; {_PRESETS}.")
    if not ends_with_special(text, tokenizer) or (wanted and text.endswith(wanted)):
        raise ModelError(f"the tokenizer's chat template puts no special token after an answer; {_PRESETS}.")
    return text
