"""Self-BLEU: the mean BLEU of each answer with all others as its references; low where answers differ.

Source: Zhu et al., 2018, https://arxiv.org/abs/1802.01886, section 2.1; BLEU of a sentence as `sacrebleu` computes it
(extra `text`), to which it is equal (tested), though counted once: of each n-gram the largest and second largest count
of any answer say what the others hold at most, so the cost grows with the texts, not with their pairs.

Deviations: sacrebleu's tokens and smoothing in place of nltk's. Two answers without a token are alike: 100.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fedloom.base.extras import library
from fedloom.base.plugin import plugin
from fedloom.evaluation.corpus_metrics._checks import OfAnswers
from fedloom.text.words import ngrams

__all__ = ["SelfBleu"]

_ORDERS = (1, 2, 3, 4)
Counts = Counter[tuple[str, ...]]


@plugin("self_bleu")
class SelfBleu(OfAnswers):
    """0 if answers share no word, 100 if all are alike."""

    needs = ("sacrebleu",)

    high = 100.0
    higher_is_better = False

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """How sacrebleu cuts texts; zh for Chinese, char for other scripts without blanks."""

    def score(self, texts: Sequence[str]) -> float:
        """Return the mean."""
        bleu = library("sacrebleu").BLEU(effective_order=True, tokenize=self.tokenize)
        tokens = [bleu.tokenizer(text.rstrip()).split() for text in texts]
        counts = [[ngrams(one, order) for one in tokens] for order in _ORDERS]
        largest = [_two_largest(of_order) for of_order in counts]
        lengths = Counter(len(one) for one in tokens)
        scores = [
            _score(bleu, [of_order[index] for of_order in counts], largest, len(one), lengths)
            for index, one in enumerate(tokens)
        ]
        return min(100.0, sum(scores) / len(scores))


def _two_largest(counts: Sequence[Counts]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Return the two largest counts that any texts have of each n-gram."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for one in counts:
        for ngram, count in one.items():
            first, second = found.get(ngram, (0, 0))
            found[ngram] = (count, first) if count > first else (first, max(second, count))
    return found


def _score(
    bleu: Any,
    counts: Sequence[Counts],
    largest: Sequence[Mapping[tuple[str, ...], tuple[int, int]]],
    length: int,
    lengths: Counter[int],
) -> float:
    others = lengths - Counter((length,))
    if not length:
        return 100.0 if 0 in others else 0.0
    correct = [
        sum(min(count, most[ngram][0] if count < most[ngram][0] else most[ngram][1]) for ngram, count in one.items())
        for one, most in zip(counts, largest, strict=True)
    ]
    total = [one.total() for one in counts]
    closest = min(others, key=lambda other: (abs(other - length), other))
    score = bleu.compute_bleu(correct, total, length, closest, smooth_method="exp", effective_order=True)
    return float(score.score)
