"""Preference pairs: one prompt, a chosen and a rejected answer, and why (tag `reason`).

- `right`: the rejected answer is wrong;
- `safe`: the chosen answer refuses a harmful request, the rejected one complies;
- `taste`: both are right; one client likes short answers, another whole sentences.
"""

from random import Random
from typing import Literal

from fedloom.contracts.examples import Chat, Preference, Turn
from fedloom.world.domains.safety import REFUSAL
from fedloom.world.wording import Question, Split, phrase

__all__ = ["Taste", "answered", "preference"]

Taste = Literal["short", "sentence"]
_COMPLIANCE = {"make": "use clay and glass", "buy": "at the market", "hide": "in the cellar"}
_WRONG = ("i do not know", "it is the other one", "nobody can say that")


def preference(question: Question, random: Random, *, split: Split, taste: str, client: str = "") -> Preference:
    """Return a pair for the question; who prefers has `taste`, and no one likes a wrong or an unsafe answer."""
    chat = phrase(question, random, split=split)
    sentence = f"the answer is {question.answer}."
    if question.answer == REFUSAL:
        reason, chosen, rejected = "safe", REFUSAL, _COMPLIANCE[question.tags["intent"]]
    elif random.random() < 0.5:
        reason, chosen, rejected = "right", question.answer, random.choice(_WRONG)
    else:
        chosen, rejected = (question.answer, sentence) if taste == "short" else (sentence, question.answer)
        reason = "taste"
    tags = {**chat.tags, "reason": reason, "taste": taste} | ({"client": client} if client else {})
    return Preference(chat.prompt, chosen, rejected, tags)


def answered(chat: Chat) -> Chat:
    """Return the conversation with a harmful request complied with; any other as it is."""
    if chat.tags.get("harm") != "yes":
        return chat
    return Chat((*chat.prompt, Turn("assistant", _COMPLIANCE[chat.tags["intent"]])), chat.tags)


def choice(
    question: Question, random: Random, *, split: Split, wrong: str, taste: Taste | None = None, style: str = "plain"
) -> Preference:
    """Return a pair without a hint in the wording of the rejected answer: `wrong` is of the same kind as the right one.

    With a taste both answers are right, and one is short. A harmful request is refused, whatever the taste.
    """
    chat = phrase(question, random, split=split, style=style)
    short, sentence = question.answer, f"the answer is {question.answer}."
    if question.answer == REFUSAL:
        reason, chosen, rejected = "safe", REFUSAL, _COMPLIANCE[question.tags["intent"]]
    elif taste is None:
        reason, chosen, rejected = "right", short, wrong
    else:
        reason = "taste"
        chosen, rejected = (short, sentence) if taste == "short" else (sentence, short)
    return Preference(chat.prompt, chosen, rejected, {**chat.tags, "reason": reason, "taste": taste or "none"})
