"""The learning rate of a round: constant, or along a line or half a wave, behind a warm-up."""

import math

from fedloom.contracts.local_settings import LocalSettings

__all__ = ["learning_rate"]


def learning_rate(settings: LocalSettings, *, round: int, rounds: int) -> float:
    """Return the learning rate of round t of T: lr_final + (lr - lr_final) (1 + cos(pi t / T)) / 2, or as scheduled.

    Linear: lr_final + (lr - lr_final) (1 - t / T). The W rounds of a warm-up, with lr (t + 1) / (W + 1), come before,
    and t and T are counted without them.
    """
    before = settings.warmup
    if round < before:
        return settings.lr * (round + 1) / (before + 1)
    if settings.schedule == "constant":
        return settings.lr
    t, n_rounds = round - before, max(1, rounds - before)
    if settings.schedule == "linear":
        return settings.lr_final + (settings.lr - settings.lr_final) * (1 - t / n_rounds)
    return settings.lr_final + 0.5 * (settings.lr - settings.lr_final) * (1 + math.cos(math.pi * t / n_rounds))
