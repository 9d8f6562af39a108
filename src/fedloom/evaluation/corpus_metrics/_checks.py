"""What corpus metrics share: as many texts as each needs, a reference beside each or none."""

from abc import abstractmethod
from collections.abc import Sequence

from fedloom.base.errors import DataError
from fedloom.contracts.federated import CorpusMetric

__all__ = ["OfAnswers", "OfReferences", "check_count"]


class OfAnswers(CorpusMetric):
    """A score of the answers alone; references do not matter."""

    @abstractmethod
    def score(self, texts: Sequence[str]) -> float:
        """Return the score of the answers."""

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """Return the score; too few answers are refused."""
        check_count(self, len(predictions))
        return self.score(predictions)


class OfReferences(CorpusMetric):
    """A score of the answers that have a reference, held against those."""

    @abstractmethod
    def score(self, found: Sequence[str], wanted: Sequence[str]) -> float:
        """Return the score of answers with the reference beside each."""

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """Return the score; too few answers with a reference are refused."""
        pairs = [pair for pair in zip(predictions, references, strict=True) if pair[1].strip()]
        check_count(self, len(pairs), "texts with a reference")
        return self.score([prediction for prediction, _ in pairs], [reference for _, reference in pairs])


def check_count(metric: CorpusMetric, count: int, what: str = "texts") -> None:
    """Refuse fewer texts than the metric needs."""
    if count < metric.least:
        raise DataError(
            f"corpus metric '{metric.name}': found {count} {what}, allowed is at least {metric.least}; give it a "
            "larger test set or leave it out."
        )
