"""What every corpus metric is handed: as many texts as it needs, a reference beside each or none."""

from collections.abc import Sequence

from fedloom.base.errors import DataError
from fedloom.contracts.federated import CorpusMetric

__all__ = ["check_count", "with_reference"]


def check_count(metric: CorpusMetric, count: int, what: str = "texts") -> None:
    """Refuse fewer texts than the metric needs."""
    if count < metric.least:
        raise DataError(
            f"corpus metric '{metric.name}': found {count} {what}, allowed is at least {metric.least}; give it a "
            "larger test set or leave it out."
        )


def with_reference(
    metric: CorpusMetric, predictions: Sequence[str], references: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the predictions that have a reference, and those; too few are refused."""
    pairs = [pair for pair in zip(predictions, references, strict=True) if pair[1].strip()]
    check_count(metric, len(pairs), "texts with a reference")
    return [prediction for prediction, _ in pairs], [reference for _, reference in pairs]
