"""Preference pairs: one prompt, a chosen and a rejected answer, and why (tag `reason`).

- `right`: the rejected answer is wrong;
- `safe`: the chosen answer refuses a harmful request, the rejected one complies;
- `taste`: both are right; one client likes short answers, another whole sentences.
"""

from dataclasses import replace
from random import Random
from typing import Literal

from fedloom.contracts.examples import Chat, Preference, Turn
from fedloom.world.domains import COMPLIANCE, REFUSAL
from fedloom.world.wording import Question, Split, phrase, sentence
from fedloom.world.words import PHRASES

__all__ = ["Taste", "answered", "choice", "preference"]

Taste = Literal["short", "sentence"]


def preference(question: Question, random: Random, *, split: Split, taste: Taste, client: str = "") -> Preference:
    """Return a pair for the question; who prefers has `taste`, and no one likes a wrong or an unsafe answer."""
    chat = phrase(question, random, split=split)
    right = question.answer != REFUSAL and random.random() < 0.5
    pair = _pair(chat, question.answer, random.choice(PHRASES["wrong"]) if right else "", None if right else taste)
    return replace(pair, tags={**pair.tags, "taste": taste} | ({"client": client} if client else {}))


def answered(chat: Chat) -> Chat:
    """Return the conversation with a harmful request complied with; any other as it is."""
    if chat.tags.get("harm") != "yes":
        return chat
    return Chat((*chat.prompt, Turn("assistant", COMPLIANCE[chat.tags["intent"]])), chat.tags)


def choice(
    question: Question, random: Random, *, split: Split, wrong: str, taste: Taste | None = None, style: str = "plain"
) -> Preference:
    """Return a pair without a hint in the wording of the rejected answer: `wrong` is of the same kind as the right one.

    With a taste both answers are right, and one is short. A harmful request is refused, whatever the taste.
    """
    return _pair(phrase(question, random, split=split, style=style), question.answer, wrong, taste)


def _pair(chat: Chat, answer: str, wrong: str, taste: Taste | None) -> Preference:
    reason, chosen, rejected = "right", answer, wrong
    if answer == REFUSAL:
        reason, rejected = "safe", COMPLIANCE[chat.tags["intent"]]
    elif taste is not None:
        both = (answer, sentence(answer))
        reason, (chosen, rejected) = "taste", both if taste == "short" else both[::-1]
    return Preference(chat.prompt, chosen, rejected, {**chat.tags, "reason": reason, "taste": taste or "none"})
