"""Attacks that only look: losses in, scores out; the higher a score, the more an example looks like a training one."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError

__all__ = ["chance_exposure", "first_place", "lira_scores", "log_odds", "min_k_scores"]

Array = NDArray[np.float64]

_SHADOWS_FOR_SPREADS = 64  # with fewer, the paper takes one spread for all examples


def chance_exposure(n_references: int) -> float:
    """Return the mean exposure in bits of what was not memorised: that of a rank drawn evenly.

    Carlini et al. 2019, https://arxiv.org/abs/1802.08232, definition 4; 1.44 for many references.
    """
    ranks = np.arange(1, n_references + 2)
    return float(np.mean(math.log2(n_references + 1) - np.log2(ranks)))


def min_k_scores(token_losses: Sequence[Array], *, share: float = 0.2) -> Array:
    """Return the mean log-probability of each example's least likely tokens.

    Min-K% Prob (Shi et al. 2023, https://arxiv.org/abs/2310.16789, equation 1): 1/E times the sum of log p(x_i | x_<i)
    over the E tokens, k % of all, whose probability is least. A text that was not trained on is likelier to hold a
    token that surprises.

    Deviations: tokens are those that are learnt, the answer's, since the model was never taught the others; E is at
    least 1.
    """
    worst = [np.sort(losses)[::-1][: max(1, int(share * len(losses)))] for losses in token_losses]
    return np.array([-float(losses.mean()) for losses in worst])


def log_odds(loss: Array) -> Array:
    """Return log(p / (1 - p)) of p = exp(-loss), computed where p is close to 1, too."""
    sure = np.maximum(loss, 1e-12)
    return -sure - np.log(-np.expm1(-sure))


def lira_scores(loss_N: Array, shadow_loss_SN: Array, inside_SN: NDArray[np.bool_]) -> Array:
    """Return how far the model's confidence in each example lies above that of S models that were not trained on it.

    The offline likelihood-ratio attack LiRA (Carlini et al. 2021, https://arxiv.org/abs/2112.03570): with
    phi = log(p / (1 - p)) of the model's confidence p, and mean and spread of phi over the shadow models without the
    example, 1 - P[N(mean, spread^2) > phi]. With fewer than 64 shadows one spread is taken for all examples.

    Deviations: p is exp(-mean loss of the learnt tokens), the geometric mean of their probabilities; the score is the
    number of spreads, of which the probability is a rising function.
    """
    if (
        shadow_loss_SN.shape != inside_SN.shape
        or shadow_loss_SN.shape[1:] != loss_N.shape
        or inside_SN.all(axis=0).any()
    ):
        raise DataError(
            f"losses of shadows {shadow_loss_SN.shape} for {len(loss_N)} examples: give each example a shadow model "
            "without it at least."
        )
    outside_SN = np.where(inside_SN, np.nan, log_odds(shadow_loss_SN))
    mean_N = np.nanmean(outside_SN, axis=0)
    alone = len(shadow_loss_SN) < _SHADOWS_FOR_SPREADS
    spread_N = np.full(len(loss_N), np.nanstd(outside_SN)) if alone else np.nanstd(outside_SN, axis=0)
    return (log_odds(loss_N) - mean_N) / np.maximum(spread_N, 1e-12)


def first_place(true_loss: float, other_losses: Array) -> bool:
    """Return whether the true candidate is likelier than all others; a tie is no find.

    Reconstruction of a masked entity (Lukas et al. 2023, https://arxiv.org/abs/2302.00539): argmin over candidates of
    the perplexity of the whole text with the candidate at the masked place.

    Deviations: candidates are drawn from all entities of the kind, where the paper's come from the training data or
    from the model itself; a text's perplexity is over what is learnt of it, the answer.
    """
    return bool((other_losses > true_loss).all())
