"""What text metrics share: the reference of an example and when two texts count as one."""

import unicodedata

from fedloom.contracts.examples import Chat, Document, Example, Preference

__all__ = ["normalise", "question_of", "reference_of"]

_FULL_STOPS = (".", "\u3002", "\uff0e")  # the Latin one, the ideographic one, the Latin one of full width


def reference_of(example: Example) -> str | None:
    """Return what a prediction is held against: a Chat's last answer, a Preference's chosen, None for a Document.

    A blank one is a missing one: None. Otherwise each answer to a question without a reference would count as wrong.
    """
    match example:
        case Chat():
            reference = example.answer
        case Preference():
            reference = example.chosen
        case Document():
            return None
    return reference if reference.strip() else None


def question_of(example: Example) -> str | None:
    """Return the last question, None for a Document."""
    return None if isinstance(example, Document) else example.prompt[-1].text


def normalise(text: str) -> str:
    """Return the text without surrounding white space, one final full stop, and the difference of cases.

    Letters with accents count as one character, however they were composed. Full stops are those of Latin, Chinese and
    Japanese texts.

    >>> normalise(" Twice a day. ")
    'twice a day'
    """
    plain = unicodedata.normalize("NFC", text).strip()
    return (plain[:-1] if plain.endswith(_FULL_STOPS) else plain).rstrip().casefold()
