"""ROUGE's F of one answer by the library `rouge-score`, over words of any script."""

from collections.abc import Sequence

from fedloom.base.extras import library
from fedloom.base.mean import Mean
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Prediction
from fedloom.evaluation.metrics._texts import reference_of
from fedloom.text.words import words

__all__ = ["rouge"]


class _Words:
    """The words of `fedloom.text.words` as the library asks for them; its own know ASCII only."""

    def tokenize(self, text: str) -> Sequence[str]:
        return words(text)


def rouge(example: Example, prediction: Prediction, kind: str, *, least: int) -> Mean:
    """Return the F of one kind of ROUGE; weight 0 if the reference has fewer than `least` words."""
    reference = reference_of(example)
    if reference is None or len(words(reference)) < least:
        return Mean()
    scorer = library("rouge_score.rouge_scorer").RougeScorer([kind], tokenizer=_Words())
    return Mean(float(scorer.score(reference, prediction.text)[kind].fmeasure), 1.0)
