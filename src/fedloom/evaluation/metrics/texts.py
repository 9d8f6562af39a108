"""What text metrics share: what is scored, where nothing is, and when two texts count as one."""

import unicodedata
from abc import abstractmethod

from fedloom.base.mean import Mean
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction

__all__ = ["OfAnswer", "OfReference", "normalise", "reference_of"]

_FULL_STOPS = (".", "\u3002", "\uff0e")  # the Latin one, the ideographic one, the Latin one of full width


class OfAnswer(Metric):
    """A score of the answer alone; a Document asks nothing and weighs 0."""

    @abstractmethod
    def score(self, text: str) -> float:
        """Return the score of an answer."""

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the score of weight 1, of weight 0 where nothing is asked."""
        return Mean(self.score(prediction.text), 1.0) if example.prompt else Mean()


class OfReference(Metric):
    """A score of an answer held against a reference; without one it weighs 0."""

    @abstractmethod
    def score(self, text: str, reference: str) -> float | None:
        """Return the score of an answer, None where the metric does not apply to the reference."""

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return the score of weight 1, of weight 0 without a reference that the metric applies to."""
        reference = reference_of(example)
        value = None if reference is None else self.score(prediction.text, reference)
        return Mean() if value is None else Mean(value, 1.0)


def reference_of(example: Example) -> str | None:
    """Return what a prediction is held against; a blank one is a missing one, None.

    Otherwise each answer to a question without a reference would count as wrong.
    """
    return example.reference if example.reference.strip() else None


def normalise(text: str) -> str:
    """Return the text without surrounding white space, one final full stop, and the difference of cases.

    Letters with accents count as one character, however they were composed. Full stops are those of Latin, Chinese and
    Japanese texts.

    >>> normalise(" Twice a day. ")
    'twice a day'
    """
    plain = unicodedata.normalize("NFC", text).strip()
    return (plain[:-1] if plain.endswith(_FULL_STOPS) else plain).rstrip().casefold()
