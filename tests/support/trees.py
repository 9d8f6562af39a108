"""What tests ask of trees and no run needs."""

import math


def norm(tree):
    """The Euclidean norm of all numbers together, in float64."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tree.values()))


def unstack(tree):
    """The trees that `tree.stack` put together."""
    count = len(next(iter(tree.values())))
    return [{name: tensor[k] for name, tensor in tree.items()} for k in range(count)]
