"""What parsers tell as likelihoods of the common classes: of labels with a confidence, or of all their own classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError
from fedloom.people.captures import Parse
from fedloom.people.labels import LABELS, PARSERS, common
from fedloom.people.meshes import Floats

__all__ = ["parse_of_labels", "parse_of_probabilities"]

_OFF = 0.02
"""How far likelihoods may be from a sum of 1: what 20 halves of a float's precision round to, and more."""


def parse_of_labels(
    labels_HW: NDArray[np.integer[Any]],
    confidence_HW: Floats | float = 1.0,
    *,
    parser: str = "fedloom",
    where: str = "labels",
) -> Parse:
    """Return hard labels as likelihoods [K, H, W]: the label has the confidence, 0 to 1, the rest is shared by all K.

    So a confidence of 0 says nothing, and above 0 the label stays the likeliest. DataError, naming `where`, for labels
    that the parser has not and confidences of another shape or out of range.
    """
    confidence = np.asarray(confidence_HW, np.float32)
    if confidence.shape not in ((), labels_HW.shape):
        raise DataError(
            f"{where}: found confidences {confidence.shape} of labels {labels_HW.shape}; give one for each pixel."
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise DataError(f"{where}: found a confidence that is no number from 0 to 1; give likelihoods.")
    classes = common(labels_HW, parser, where)
    shares = np.arange(len(LABELS))[:, None, None] == classes
    return Parse(shares * confidence + (1 - confidence) / np.float32(len(LABELS)))


def parse_of_probabilities(
    probabilities_KHW: Floats, *, parser: str = "fedloom", where: str = "probabilities"
) -> Parse:
    """Return a parser's likelihoods of its own classes as those of the common ones: the sum over each.

    DataError, naming `where`, where they are none: another number of classes, a negative one, or sums far from 1.
    """
    table = common(np.arange(len(probabilities_KHW)), parser, where)
    if probabilities_KHW.ndim != 3 or len(table) != len(PARSERS[parser]):
        raise DataError(
            f"{where}: found likelihoods {probabilities_KHW.shape}, those of parser '{parser}' are "
            f"[{len(PARSERS[parser])}, H, W]; name its parser."
        )
    given = probabilities_KHW.astype(np.float32)
    sums_HW = given.sum(0)
    if not (given >= 0).all() or not (np.abs(sums_HW - 1) <= _OFF).all():  # NaN is refused, too
        raise DataError(
            f"{where}: found likelihoods below 0 or without a sum of 1 in each pixel; take a softmax of scores."
        )
    into_CK = (np.arange(len(LABELS))[:, None] == table).astype(np.float32)
    return Parse(np.tensordot(into_CK, given / sums_HW, axes=1))
