"""F scores of labels over all answers; what begins with no label is wrong for each of them."""

from collections.abc import Sequence
from typing import Literal

from fedloom.base.errors import ConfigError
from fedloom.base.extras import library
from fedloom.contracts.federated import CorpusMetric
from fedloom.evaluation.corpus_metrics._checks import check_count
from fedloom.text.words import first_label

__all__ = ["check_labels", "label_f1"]


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels of which fewer than two differ."""
    if len({label.casefold() for label in labels}) < 2:
        raise ConfigError(f"labels: found {list(labels)}, allowed are two or more different ones.")


def label_f1(
    metric: CorpusMetric,
    predictions: Sequence[str],
    references: Sequence[str],
    labels: Sequence[str],
    average: Literal["macro", "weighted"],
) -> float:
    """Return the F over the labels that occur in references; pairs whose reference has none are left out."""
    pairs = [
        (first_label(prediction, labels) or "", wanted)
        for prediction, reference in zip(predictions, references, strict=True)
        if (wanted := first_label(reference, labels)) is not None
    ]
    check_count(metric, len(pairs), "texts whose reference begins with a label")
    found, wanted = [found for found, _ in pairs], [wanted for _, wanted in pairs]
    asked = sorted(set(wanted))
    score = library("sklearn.metrics").f1_score(wanted, found, labels=asked, average=average, zero_division=0)
    return min(1.0, float(score))
