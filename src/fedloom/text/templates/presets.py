r"""Templates that are records of strings: Alpaca, Vicuna, ChatML, and none at all.

- `alpaca`, byte by byte as OpenFedLLM publishes it (Ye et al., 2024, https://arxiv.org/abs/2402.06954), after Stanford
  Alpaca's form without input. The instruction is followed by one blank.
- `vicuna`, version 1.1, as OpenFedLLM publishes it and FastChat's conversation `vicuna_v1.1` writes it over several
  turns (https://github.com/lm-sys/FastChat, style ADD_COLON_TWO): a blank after a question, the end token and nothing
  else after an answer. A system turn takes the place of the opening sentences, as in FastChat.
- `chatml`, OpenAI's Chat Markup Language (https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md). The
  end token is `<|im_end|>`, whatever the tokenizer's own is; a tokenizer that does not know it is refused.
- `bare`, for records whose prompt is text with its template already in it, such as the preference files of
  FedLLM-Bench, and for base models that continue text.

Prompts of the first two end with a colon; the blank after it belongs to the answer, hence is learnt.

Deviations: Alpaca's source knows neither system turns nor second questions. Here a system turn takes the place of the
first sentence pair, and a further question follows the end token after an empty line. Of ChatML the line break after
the last `<|im_end|>` is left out, there is nothing to learn from it; no system turn is put in where there is none.
"""

from collections.abc import Sequence
from typing import ClassVar

from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Piece, Template
from fedloom.contracts.language import Tokenizer
from fedloom.text.templates._format import Format

__all__ = ["Alpaca", "Bare", "ChatML", "Vicuna"]


class Preset(Template):
    """A template that a `Format` says all of."""

    form: ClassVar[Format]

    def pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[Piece]:
        """Return the text in pieces; a tokenizer without the end token is refused."""
        return self.form.pieces(turns, tokenizer)

    def jinja(self, tokenizer: Tokenizer) -> str | None:
        """Return the format as a chat template."""
        return self.form.jinja(tokenizer)


@plugin("alpaca")
class Alpaca(Preset):
    """Instruction and response under headings."""

    form = Format(
        preamble=(
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.\n\n"
        ),
        system="{text}\n\n",
        user="### Instruction:\n{text} \n\n",
        assistant="### Response: {text}",
        separator="\n\n",
    )


@plugin("vicuna")
class Vicuna(Preset):
    """A transcript on one line, USER: and ASSISTANT: in turn."""

    form = Format(
        preamble=(
            "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        ),
        system="{text} ",
        user="USER: {text}",
        assistant=" ASSISTANT: {text}",
    )


@plugin("chatml")
class ChatML(Preset):
    """Turns between start and end tokens."""

    form = Format(
        system="<|im_start|>system\n{text}<|im_end|>\n",
        user="<|im_start|>user\n{text}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{text}",
        separator="\n",
        end="<|im_end|>",
    )


@plugin("bare")
class Bare(Preset):
    """The texts of the turns and nothing between them."""

    form = Format(user="{text}", assistant="{text}")
