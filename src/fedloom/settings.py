"""How a client trains in one round: the fields of the table `local` of a run file."""

from dataclasses import dataclass
from typing import Literal

from fedloom.errors import ConfigError
from fedloom.plugin import AtLeast, Fraction, NonNegative, Positive, check_ranges

__all__ = ["LocalSettings"]


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How a client trains in one round."""

    lr: Positive = 2e-3
    """Learning rate of the first round."""
    lr_final: NonNegative = 0.0
    """Learning rate towards which the cosine falls over the rounds; it is constant within a round."""
    schedule: Literal["cosine", "constant"] = "cosine"
    steps: AtLeast = 10
    """Optimiser steps in a round."""
    batch: AtLeast = 16
    """Examples of a micro-batch."""
    accumulation: AtLeast = 1
    """Micro-batches of a step."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive = 1e-8
    momentum: Fraction = 0.0
    """Momentum of sgd."""
    weight_decay: NonNegative = 0.0
    clip_norm: NonNegative = 1.0
    """Largest norm of a step's gradient; 0 does not clip."""
    optimiser_state: Literal["fresh", "kept"] = "fresh"
    """Whether a client's optimiser starts anew in each round or keeps its moments."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.lr_final > self.lr:
            raise ConfigError(f"lr_final: found {self.lr_final:g}, allowed is at most lr = {self.lr:g}.")
