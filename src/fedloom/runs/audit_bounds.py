"""What a finished model gives away: exposure of canaries, a lower bound on epsilon, membership inference.

All three are attacks that only look: they take losses or scores and return numbers, and claim nothing beyond the attack
that was tried. A lower bound above a stated epsilon proves the statement wrong; one below it proves nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.errors import DataError

__all__ = [
    "Estimate",
    "LowerBound",
    "Membership",
    "Shape",
    "best_thresholds",
    "exposure",
    "guess_counts",
    "least_leak",
    "loss_scores",
    "many_trials_bound",
    "membership",
    "one_run_bound",
    "one_run_p_value",
    "reference_scores",
    "separations",
]

Array = NDArray[np.float64]

_STEP = 0.05  # of epsilon, while the bound is bracketed
_BLOCK = 2_000_000  # counts held at once


# ----------------------------------------------------------------------------------------------------------- exposure


def exposure(canary_C: Array, reference_R: Array) -> Array:
    """Return the exposure [C] of canaries in bits, from their losses and those of references that were never inserted.

    Carlini et al. 2019, The Secret Sharer, https://arxiv.org/abs/1802.08232, definition 4: log2 |R| - log2 rank, where
    R is the canary and the references, and the rank counts from the least loss. A reference as likely as the canary
    ranks before it. A canary that was not memorised has any rank alike, on average log2 e = 1.44 bits; the most that R
    references can show is log2(R + 1).

    Deviations: R is a sample of the space of canaries, the first approximation of section 4.4.
    """
    _check("canaries", canary_C)
    _check("references", reference_R)
    rank_C = 1 + np.searchsorted(np.sort(reference_R), canary_C, side="right")
    return np.log2(len(reference_R) + 1) - np.log2(rank_C)


# ------------------------------------------------------------------------------------------------- audit from one run


@dataclass(frozen=True, slots=True)
class LowerBound:
    """An epsilon that the audit rejects, and the guesses that reject it."""

    epsilon: float
    guesses: int
    correct: int
    canaries: int


def guess_counts(n_canaries: int) -> list[tuple[int, int]]:
    """Return four numbers of guesses (included, left out) to try: a sixteenth of the canaries each, up to a half."""
    return sorted({(count, count) for share in (16, 8, 4, 2) if (count := n_canaries // share) > 0})


def one_run_bound(
    scores_M: Array,
    included_M: NDArray[np.bool_],
    *,
    delta: float,
    guesses: Sequence[tuple[int, int]],
    confidence: float = 0.95,
) -> LowerBound:
    """Return a lower bound on the epsilon of the run that scored M canaries, each included by a fair coin of its own.

    Steinke, Nasr & Jagielski 2023, Privacy Auditing with One (1) Training Run, https://arxiv.org/abs/2305.08846,
    theorem 5.2 in the form of corollary 5.4, by the algorithm of appendix D. The highest scores are guessed to be
    included, the lowest to be left out, the others not guessed. With several pairs of `guesses` (included, left out)
    each is tested at an equal part of 1 - `confidence` (Bonferroni), and the best counts; the pairs must be chosen
    without knowing what was included, as `guess_counts` does.

    The bound is the least epsilon, to 0.001 from below, that is not rejected; 0 if none is.
    """
    _check("canaries", scores_M)
    if scores_M.shape != included_M.shape:
        raise DataError(f"{len(scores_M)} scores come with {len(included_M)} coins of canaries: give one each.")
    if not guesses or not 0 <= delta < 1 or not 0 < confidence < 1:
        raise DataError(
            f"an audit with {len(guesses)} pairs of guesses, delta {delta:g} and confidence {confidence:g}: allowed "
            "are at least one pair, delta >= 0 and < 1, confidence > 0 and < 1."
        )
    order_M = np.argsort(scores_M, kind="stable")  # ties fall as the canaries lie, which no coin has decided
    found = [_bound(order_M, included_M, pair, delta, (1 - confidence) / len(guesses)) for pair in guesses]
    return max(found, key=lambda bound: bound.epsilon)


def one_run_p_value(n_canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float) -> float:
    """Return the largest probability with which an (epsilon, delta) private run lets so many guesses be correct.

    P[X >= v] + 2 m delta max over i of P[v - i <= X < v] / i, where X is binomial of r guesses with the accuracy
    1 / (1 + exp(-epsilon)) of randomised response, v are correct, and m canaries were tossed for (corollary 5.4).
    """
    mass_R = _binomial(guesses, epsilon)
    beyond = float(mass_R[correct:].sum())
    below_V = np.cumsum(mass_R[:correct][::-1])
    steepest = float((below_V / np.arange(1, correct + 1)).max(initial=0.0))
    return min(1.0, beyond + 2 * n_canaries * delta * steepest)


def _bound(
    order_M: NDArray[np.int64], included_M: NDArray[np.bool_], pair: tuple[int, int], delta: float, level: float
) -> LowerBound:
    canaries, (positive, negative) = len(order_M), pair
    if min(pair) < 0 or not 0 < positive + negative <= canaries:
        raise DataError(
            f"{positive} + {negative} guesses about {canaries} canaries: allowed are 1 to {canaries} in all; "
            "insert more canaries or guess fewer."
        )
    right = included_M[order_M[canaries - positive :]].sum() + (~included_M[order_M[:negative]]).sum()
    guesses, correct = positive + negative, int(right)

    def rejected(epsilon: float) -> bool:
        return one_run_p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta) <= level

    low, high = 0.0, 0.0
    while rejected(high):  # step by step, so that every epsilon below the bound is rejected
        low, high = high, high + _STEP
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return LowerBound(low, guesses, correct, canaries)


def _binomial(count: int, epsilon: float) -> Array:
    """Return the probabilities [count + 1] of 0 to `count` successes at the accuracy of randomised response."""
    log_choices_R, successes_R = _log_choices(0, count)
    log_right = -math.log1p(math.exp(-epsilon))
    return np.exp(log_choices_R + successes_R * log_right + (count - successes_R) * (log_right - epsilon))


# -------------------------------------------------------------------------------------------- audit from many trials


@dataclass(frozen=True, slots=True)
class Shape:
    """How scores of canaries lie under an honest Gaussian mechanism, over the deviation of its noise.

    Summed over the uses and divided by their root, a canary that is not included scores N(0, 1).
    """

    signal: float
    """What an included canary moves one use by."""
    rate: float
    uses: int
    opposite: bool = False
    """Whether a canary that is not included sends the opposite."""

    def laws(self, noise: float = 1.0) -> tuple[NormalDist, NormalDist]:
        """Return the laws of included and other canaries if the noise is `noise` times what it should be."""
        mean = self.signal * self.rate * math.sqrt(self.uses)
        spread = math.hypot(noise, self.signal * math.sqrt(self.rate * (1 - self.rate)))
        return NormalDist(mean, spread), NormalDist(-mean, spread) if self.opposite else NormalDist(0.0, noise)


def many_trials_bound(
    scores_M: Array,
    included_M: NDArray[np.bool_],
    *,
    thresholds: Sequence[float],
    delta: float,
    confidence: float = 0.95,
) -> LowerBound:
    """Return a lower bound on epsilon from M independent trials, each with a coin of its own.

    Scores of at least a threshold are guessed included; with several `thresholds`, which must be chosen beforehand,
    each is tested at an equal part of 1 - `confidence` (Bonferroni), and the best counts. A private mechanism has
    P[guessed | included] <= exp(epsilon) P[guessed | not] + delta (Kairouz et al. 2015,
    https://arxiv.org/abs/1311.0776); either probability is bounded by Clopper and Pearson at half the error (Nasr et
    al. 2021, https://arxiv.org/abs/2101.04535, section IV).

    `correct` counts included canaries among the guesses. Trials are independent where they come from runs of their own,
    or from canaries of one run in orthogonal directions with noise that is independent in each.
    """
    _check("canaries", scores_M)
    included, others = int(included_M.sum()), int((~included_M).sum())
    found: list[LowerBound] = []
    for guessed_M in (scores_M >= threshold for threshold in thresholds):
        correct, wrong = int((guessed_M & included_M).sum()), int((guessed_M & ~included_M).sum())
        epsilon = _separation_bound(included, correct, others, wrong, delta, (1 - confidence) / len(thresholds))
        found.append(LowerBound(epsilon, correct + wrong, correct, len(scores_M)))
    return max(found, key=lambda bound: bound.epsilon)


def _separation_bound(included: int, correct: int, others: int, wrong: int, delta: float, level: float) -> float:
    least = _least_rate(correct, included, level / 2)
    most = 1 - _least_rate(others - wrong, others, level / 2)
    return max(0.0, math.log((least - delta) / most)) if least > delta else 0.0


def _least_rate(hits: int, count: int, error: float) -> float:
    """Return the lower limit of Clopper & Pearson (1934): the rate at which so many hits or more have that chance."""
    if hits == 0:
        return 0.0
    log_choices_R, k_R = _log_choices(hits, count)
    rest_R = count - k_R
    low, high = 0.0, hits / count
    while high - low > 1e-9:
        middle = (low + high) / 2
        chance = np.exp(log_choices_R + k_R * math.log(middle) + rest_R * math.log1p(-middle)).sum()
        low, high = (middle, high) if chance < error else (low, middle)
    return low


def _log_choices(hits: int, count: int) -> tuple[Array, NDArray[np.int64]]:
    """Return log(count choose k) for `hits` and more of `count`, and the numbers k."""
    k_R = np.arange(hits, count + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    return log_factorial[count] - log_factorial[k_R] - log_factorial[count - k_R], k_R


_SHARES = (0.5, 0.1)  # of the noise, that thresholds are chosen for


def best_thresholds(shapes: Mapping[Shape, int], *, delta: float, confidence: float = 0.95) -> tuple[float, ...]:
    """Return the thresholds at which half and a tenth of the noise would be told best, found without any score.

    `shapes` says how many trials have scores of which law.
    """
    level = (1 - confidence) / len(_SHARES)
    return tuple(_best_threshold(shapes, noise, delta, level) for noise in _SHARES)


def least_leak(shapes: Mapping[Shape, int], *, stated: float, delta: float, confidence: float = 0.95) -> float:
    """Return the largest share of the stated noise that the trials would refute in four audits of five; 0 for none."""
    thresholds = best_thresholds(shapes, delta=delta, confidence=confidence)
    level = (1 - confidence) / len(thresholds)

    def told(noise: float) -> bool:
        return any(_likely_bound(shapes, at, noise, delta, level, luck=_BAD_LUCK) > stated for at in thresholds)

    return next(filter(told, (2 ** (-step / 16) for step in range(1, 161))), 0.0)


_BAD_LUCK = NormalDist().inv_cdf(0.1)  # of the hits, and of the false ones: both are better in four audits of five


def _best_threshold(shapes: Mapping[Shape, int], noise: float, delta: float, level: float) -> float:
    laws = [shape.laws(noise) for shape in shapes]
    low, high = min(without.mean for _, without in laws), 3 + max(with_it.mean for with_it, _ in laws)
    grid = [low + share * (high - low) / 100 for share in range(101)]
    return max(grid, key=lambda at: _likely_bound(shapes, at, noise, delta, level))


def _likely_bound(
    shapes: Mapping[Shape, int], threshold: float, noise: float, delta: float, level: float, luck: float = 0.0
) -> float:
    """Return the bound of trials, half of them included, under that noise; `luck` is in standard deviations of hits."""
    halves = [(count / 2, shape.laws(noise)) for shape, count in shapes.items()]
    half = sum(shapes.values()) // 2
    correct, wrong = (
        min(half, _hits([(count, 1 - laws[side].cdf(threshold)) for count, laws in halves], sign * luck))
        for side, sign in ((0, 1), (1, -1))
    )
    return _separation_bound(half, correct, half, wrong, delta, level)


def _hits(parts: Sequence[tuple[float, float]], luck: float) -> int:
    """Return how many of so many trials at such rates hit, `luck` standard deviations off the mean."""
    mean = sum(count * rate for count, rate in parts)
    variance = sum(count * rate * (1 - rate) for count, rate in parts)
    return max(0, round(mean + luck * math.sqrt(variance)))


# ----------------------------------------------------------------------------------------------- membership inference


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Membership:
    """How well scores tell members of the training data from others."""

    auc: Estimate
    true_positive_rate: Estimate
    """Share of members found where at most `false_positive_rate` of the others are taken for members."""
    false_positive_rate: float
    n_members: int
    n_others: int


def loss_scores(loss_N: Array) -> Array:
    """Return scores [N] that rise as the loss falls (Yeom et al. 2018, https://arxiv.org/abs/1709.01604)."""
    return -loss_N


def reference_scores(loss_N: Array, reference_loss_N: Array) -> Array:
    """Return by how much the model's loss lies below that of a model that has not seen the examples [N].

    What is easy for every model is no sign of membership (Watson et al. 2022, On the Importance of Difficulty
    Calibration, https://arxiv.org/abs/2111.08440).
    """
    if loss_N.shape != reference_loss_N.shape:
        raise DataError(f"{len(loss_N)} losses come with {len(reference_loss_N)} of the reference: give one each.")
    return reference_loss_N - loss_N


def membership(
    member_N: Array, other_M: Array, *, false_positive_rate: float = 0.01, resamples: int = 1000, seed: int = 0
) -> Membership:
    """Return AUC and true-positive rate of scores, with percentile intervals of a bootstrap within either group.

    Carlini et al. 2022, Membership Inference Attacks From First Principles, https://arxiv.org/abs/2112.03570: the mean
    over all thresholds says little of the worst case, the rate at few false positives does. With fewer than 1 / rate
    others, no false positive is allowed at all.
    """
    drawn = separations(member_N, other_M, false_positive_rate, resamples, rng.numpy_random("membership", seed))
    auc, rate = (_estimate(float(found_R[0]), found_R[1:]) for found_R in drawn)
    return Membership(auc, rate, false_positive_rate, len(member_N), len(other_M))


def separations(
    member_N: Array, other_M: Array, false_positive_rate: float, resamples: int, random: np.random.Generator
) -> tuple[Array, Array]:
    """Return AUC and true-positive rate [1 + R] of the scores, first as they are, then of R resamples of each group."""
    _check("members", member_N)
    _check("others", other_M)
    values_U, place = np.unique(np.concatenate([member_N, other_M]), return_inverse=True)
    groups = place[: len(member_N)], place[len(member_N) :]
    once = [np.bincount(group, minlength=len(values_U))[None] for group in groups]
    found = [_separation(once[0], once[1], false_positive_rate)]
    block = max(1, _BLOCK // len(values_U))
    for first in range(0, resamples, block):
        count = min(block, resamples - first)
        again = [_resampled(random, group, count, len(values_U)) for group in groups]
        found.append(_separation(again[0], again[1], false_positive_rate))
    auc_R, rate_R = (np.concatenate(part) for part in zip(*found, strict=True))
    return auc_R, rate_R


def _separation(
    member_RU: NDArray[np.int64], other_RU: NDArray[np.int64], false_positive_rate: float
) -> tuple[Array, Array]:
    """Return AUC [R] and true-positive rate [R] from how often each of U rising scores occurs in either group."""
    n_members, n_others = int(member_RU[0].sum()), int(other_RU[0].sum())
    below_RU = np.cumsum(other_RU, axis=1) - other_RU
    auc_R = (member_RU * (below_RU + other_RU / 2)).sum(axis=1) / (n_members * n_others)
    found_RU = n_members - (np.cumsum(member_RU, axis=1) - member_RU)  # by the threshold "at least this score"
    allowed_RU = n_others - below_RU <= math.floor(false_positive_rate * n_others)
    return auc_R, np.where(allowed_RU, found_RU, 0).max(axis=1) / n_members


def _resampled(random: np.random.Generator, place_N: NDArray[np.int64], count: int, n_values: int) -> NDArray[np.int64]:
    """Return how often each score occurs in `count` resamples [count, U] of a group."""
    drawn_RN = place_N[random.integers(len(place_N), size=(count, len(place_N)))]
    shifted_RN = drawn_RN + n_values * np.arange(count)[:, None]
    return np.bincount(shifted_RN.ravel(), minlength=count * n_values).reshape(count, n_values)


def _estimate(value: float, values_R: Array) -> Estimate:
    low, high = np.percentile(values_R, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _check(what: str, values: Array) -> None:
    if values.ndim != 1 or not len(values):
        raise DataError(f"{what} of an audit have shape {values.shape}: allowed is one row of at least one number.")
    if np.isnan(values).any():
        raise DataError(f"{what} of an audit hold NaN: give a number for each.")
