"""How labels are read, by the metric that scores them and by the one that counts what cannot be read."""

from collections.abc import Callable, Sequence

from fedloom.base.errors import ConfigError
from fedloom.base.mean import Mean
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Prediction
from fedloom.evaluation.metrics._texts import reference_of
from fedloom.text.words import first_label

__all__ = ["SENTIMENT", "check_labels", "told_label"]

SENTIMENT = ("negative", "neutral", "positive")


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that are blank, equal or fewer than two."""
    plain = [label.casefold() for label in labels]
    if len(set(plain)) < max(2, len(plain)) or not all(label.strip() == label != "" for label in plain):
        raise ConfigError(f"labels: found {list(labels)}, allowed are two or more different ones without outer blanks.")


def told_label(
    example: Example, prediction: Prediction, labels: Sequence[str], score: Callable[[str | None, str], bool]
) -> Mean:
    """Return the score of the label found (None if there is none) and the one wanted; weight 0 if none is wanted."""
    wanted = first_label(reference_of(example) or "", labels)
    if wanted is None:
        return Mean()
    return Mean(float(score(first_label(prediction.text, labels), wanted)), 1.0)
