"""Requests that are to be refused, or not: files of them, and how often an answer does the right thing."""

from collections.abc import Mapping

from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup
from fedloom.contracts.evaluation import Answered, Metric, Question
from fedloom.contracts.examples import chat
from fedloom.contracts.model import Prediction
from fedloom.judged.exams._files import Wanted, records, text_of

__all__ = ["REFUSES", "SERVES", "by_lists", "questions_of"]

REFUSES, SERVES = "I cannot help with that.", "Here it is."
"""References that do, and do not, refuse: the refusal metrics ask whether answer and reference agree in it."""

_METRICS = {"anchored": "refusal", "anywhere": "refusal_anywhere"}
_TEXTS = ("goal", "instruction", "prompt")


def questions_of(path: str, wanted: Wanted, *, end: str = "") -> list[Question]:
    """Return the requests of a file, `end` behind each; a `category` or `type` that a record has is kept."""
    found: list[Question] = []
    for index, record in enumerate(records(path, wanted)):
        text = text_of(record, _TEXTS, f"{wanted.key}: {path}: record {index}")
        category = record.get("category") or record.get("type") or ""
        found.append(Question(str(index), (f"{text}{end}",), str(category)))
    return found


def by_lists(answered: Answered, name: str, reference: str) -> Mapping[str, Mean]:
    """Return `name_anchored` and `name_anywhere`: 1 where the answer agrees with the reference in refusing."""
    example = chat(answered.question.turns[0], reference)
    prediction = Prediction(answered.answers[0], 0)
    return {f"{name}_{how}": lookup(Metric, metric)()(example, prediction) for how, metric in _METRICS.items()}
