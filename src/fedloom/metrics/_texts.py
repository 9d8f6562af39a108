"""What text metrics share: the reference of an example and when two texts count as one."""

from fedloom.examples import Chat, Example, Preference

__all__ = ["normalise", "reference_of"]


def reference_of(example: Example) -> str | None:
    """Return what a prediction is held against: a Chat's last answer, a Preference's chosen, None for a Document."""
    match example:
        case Chat():
            return example.answer
        case Preference():
            return example.chosen
        case _:
            return None


def normalise(text: str) -> str:
    """Return the text without surrounding white space, one final full stop, and the difference of cases.

    >>> normalise(" Twice a day. ")
    'twice a day'
    """
    return text.strip().removesuffix(".").rstrip().casefold()
