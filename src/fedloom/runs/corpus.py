"""Scores of all answers to the common test together.

Never over the clients' validation texts: such a score is no sum over clients, so that their texts would have to be
brought to one place. Where there are several models each answers for itself, as the texts of one corpus: the answers of
two models side by side would repeat each other without either repeating itself.
"""

from collections.abc import Sequence

from fedloom.base.errors import ConfigError
from fedloom.base.mean import Mean
from fedloom.contracts.federated import CorpusMetric
from fedloom.evaluation.calibration import CALIBRATION, calibration_error
from fedloom.evaluation.held_out import HeldOut, Scored

__all__ = ["corpus_means", "refuse_few_texts"]


def refuse_few_texts(metrics: Sequence[CorpusMetric], held: Sequence[HeldOut]) -> None:
    """Refuse corpus metrics of a run whose common test is too small for one of them, before anything is trained."""
    tests = [example for part in held if part.name == "test" for example in part.examples]
    common = sum("client" not in example.tags for example in tests)
    for metric in metrics:
        if common < metric.least:
            raise ConfigError(
                f"evaluation.corpus_metrics: found {common} examples of a test that belongs to no client, "
                f"'{metric.name}' needs at least {metric.least}; take data with a larger common test, raise "
                "evaluation.limit, or leave it out."
            )


def corpus_means(metrics: Sequence[CorpusMetric], scored: Sequence[Scored]) -> dict[str, Mean]:
    """Return each metric by `test/<name>`, weighing as many answers as it saw; over several models their mean.

    Beside them the calibration error, where the task tells what confidence and accuracy its answers have.
    """
    answers: dict[str, list[Scored]] = {}
    for one in scored:
        if one.set == "test" and "client" not in one.tags:
            answers.setdefault(one.owner, []).append(one)
    means: dict[str, Mean] = {}
    for told in answers.values():
        texts = [one.prediction for one in told], [one.reference for one in told]
        values = {metric.name: metric(*texts) for metric in metrics} | _calibration(told)
        for name, value in values.items():
            means[f"test/{name}"] = means.get(f"test/{name}", Mean()) + Mean(value * len(told), len(told))
    return means


def _calibration(told: Sequence[Scored]) -> dict[str, float]:
    if not all({"confidence", "accuracy"} <= one.scores.keys() for one in told):
        return {}
    confidence, right = ([one.scores[name].value for one in told] for name in ("confidence", "accuracy"))
    return {CALIBRATION: calibration_error(confidence, right)}
