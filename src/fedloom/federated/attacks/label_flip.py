"""Answers that belong to other questions: label flipping for texts.

Tolpegin et al., 2020 (https://arxiv.org/abs/2007.08432), section 3: malicious clients train on their own inputs with
the labels of others. It is the attack that parameter comparison finds, and the control beside a stealthy one.

Deviations: there are no classes, so no source class is turned into one target class: each example takes the answer of
another one of the same client that differs from its own.
"""

from collections.abc import Sequence

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.attack import Attack
from fedloom.contracts.examples import Chat, Example, Turn

__all__ = ["LabelFlip"]


@plugin("label_flip")
class LabelFlip(Attack):
    """Trains on its own questions with answers of other ones."""

    def examples(self, own: Sequence[Example], drawn: Sequence[Example], client: str, seed: int) -> Sequence[Example]:
        """Return the examples, each with an answer that is not its own; DataError where all answers are alike."""
        chats = [one for one in drawn or own if isinstance(one, Chat)]
        answers = sorted({one.reference for one in chats})
        if len(answers) < 2 or len(chats) < len(own):
            raise DataError(
                f"attack: 'label_flip' found {len(answers)} different answers in {len(chats)} conversations of client "
                f"'{client}', which has {len(own)} examples; allowed are conversations with two answers or more."
            )
        random = rng.python_random("label_flip", seed, client)
        return [_answered(one, random.choice([text for text in answers if text != one.reference])) for one in chats]


def _answered(chat: Chat, answer: str) -> Chat:
    return Chat((*chat.prompt, Turn("assistant", answer)), chat.tags)
