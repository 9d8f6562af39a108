"""Settings of a fusion chosen without labels: by how well the other views foretell the parser of the one left out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from fedloom.people.meshes import Floats, Ints
from fedloom.people.potts import softmax

__all__ = ["Fit", "chosen", "left_out", "surprise"]

_SCALES, _WRONG = (0.25, 0.5, 1.0), (0.02, 0.05, 0.1, 0.2, 0.3, 0.45)


@dataclass(frozen=True)
class Fit:
    """How probabilities are read."""

    temperature: float
    error: float
    """The share ε of even probability that is mixed in: a parser may always err."""
    confident: bool
    """Whether views count by how sure their parser is."""
    surprise: float = float("nan")
    """Mean negative log-likelihood of a view's labels under the others, where it was measured."""


def left_out(evidence_VNK: Floats, prior_K: Floats) -> Floats:
    """Return for each view the shares [V, N, K] that the other views' evidence gives."""
    return softmax(evidence_VNK.sum(0)[None] - evidence_VNK + prior_K)


def surprise(evidence_VNK: Floats, prior_K: Floats, labels_VN: Ints, counted_VN: Floats) -> float:
    """Return the mean negative log-likelihood of each view's labels under the field of the others.

    The field is read at the scale and with the share of wrong labels that fit best: a view's labels err themselves, and
    how much evidence is worth beside neighbours is not to be learnt from them. With one view the prior foretells.
    """
    scores: list[float] = []
    total = max(float(counted_VN.sum()), 1e-9)
    for scale in _SCALES:
        shares_VNK = left_out(scale * evidence_VNK, prior_K)
        told_VN = np.take_along_axis(shares_VNK, labels_VN[..., None], axis=2)[..., 0]
        for wrong in _WRONG:
            likely_VN = (1 - wrong) * told_VN + wrong / shares_VNK.shape[-1]
            scores.append(float((-np.log(likely_VN) * counted_VN).sum()) / total)
    return min(scores)


def chosen(fits: Iterable[Fit], measured: Callable[[Fit], float]) -> Fit:
    """Return the fit of least surprise, the first among equals, with that surprise."""
    return min((replace(fit, surprise=measured(fit)) for fit in fits), key=lambda fit: fit.surprise)
