"""What text metrics share: the reference of an example and when two texts count as one."""

import unicodedata

from fedloom.contracts.examples import Example

__all__ = ["normalise", "question_of", "reference_of"]

_FULL_STOPS = (".", "\u3002", "\uff0e")  # the Latin one, the ideographic one, the Latin one of full width


def reference_of(example: Example) -> str | None:
    """Return what a prediction is held against; a blank one is a missing one, None.

    Otherwise each answer to a question without a reference would count as wrong.
    """
    return example.reference if example.reference.strip() else None


def question_of(example: Example) -> str | None:
    """Return the last question, None where nothing is asked."""
    return example.prompt[-1].text if example.prompt else None


def normalise(text: str) -> str:
    """Return the text without surrounding white space, one final full stop, and the difference of cases.

    Letters with accents count as one character, however they were composed. Full stops are those of Latin, Chinese and
    Japanese texts.

    >>> normalise(" Twice a day. ")
    'twice a day'
    """
    plain = unicodedata.normalize("NFC", text).strip()
    return (plain[:-1] if plain.endswith(_FULL_STOPS) else plain).rstrip().casefold()
