"""How a client trains in one round: the fields of the table `local` of a run file."""

import math
from dataclasses import dataclass
from fractions import Fraction as Rational
from typing import Literal

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, Count, Fraction, NonNegative, Positive, check_ranges

__all__ = ["LocalSettings"]


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """How a client trains in one round."""

    lr: Positive = 2e-3
    """Learning rate of the first round."""
    lr_final: NonNegative = 0.0
    """Learning rate towards which it falls over the rounds; it is constant within a round."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate goes over the rounds."""
    warmup: Count = 0
    """Rounds in which the rate rises to `lr` in equal steps, before the schedule begins."""
    steps: AtLeast = 10
    """Optimiser steps in a round."""
    epochs: NonNegative = 0.0
    """Passes over its data that each client makes in the whole run, as expected; they take the place of `steps`, which
    then differ from client to client. 0 takes `steps`."""
    batch: AtLeast = 16
    """Examples of a micro-batch."""
    accumulation: AtLeast = 1
    """Micro-batches of a step."""
    curriculum: AtLeast = 1
    """Levels, equal parts of a client's examples as they stand in order, that it trains on one after another over the
    rounds of the run; 1 trains on all of them in every round. Preparation `by_alignment` puts them in an order."""
    p_generated: Fraction | None = None
    """Probability with which an element of a batch is a generated example, where a client has some (`prepare`). Left
    out: all of its examples are met alike often."""
    pretrain: Count = 0
    """First rounds that train on generated examples alone; those after them on the client's own, or by p_generated."""
    match_exposure: bool = False
    """Whether a client that has generated examples takes as many more steps as keep the visits to each of its own what
    they are without them: steps (N + B) / N, or steps / (1 - p_generated)."""
    normalise: Literal["tokens", "examples"] = "tokens"
    """What a step's loss is a mean over: all supervised tokens of its examples alike, or its examples, each by the
    mean over its own tokens. With privacy of examples it is the same, over the expected number instead of the real."""
    tokens_per_example: Positive = 1.0
    """Supervised tokens that a private example is taken to have where tokens are counted, a number fit to be public:
    an example's summed loss is divided by it before its gradient is clipped."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """What takes the steps."""
    beta1: Fraction = 0.9
    """Of AdamW: decay of the mean of gradients."""
    beta2: Fraction = 0.999
    """Of AdamW: decay of the mean of their squares."""
    epsilon: Positive = 1e-8
    """Of AdamW: added to the root of that."""
    momentum: Fraction = 0.0
    """Momentum of sgd."""
    weight_decay: NonNegative = 0.0
    """Share of a parameter that a step of rate 1 takes off, apart from the gradient."""
    clip_norm: NonNegative = 1.0
    """Largest norm of a step's gradient; 0 does not clip."""
    optimiser_state: Literal["fresh", "kept"] = "fresh"
    """Whether a client's optimiser starts anew in each round or keeps its moments."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.match_exposure and (self.epochs or self.pretrain or self.p_generated == 1):
            raise ConfigError(
                "match_exposure: found it with epochs, pretrain or p_generated = 1, allowed is steps, in each of which "
                "own examples are met."
            )
        if self.lr_final > self.lr:
            raise ConfigError(f"lr_final: found {self.lr_final:g}, allowed is at most lr = {self.lr:g}.")

    def share_generated(self, round: int) -> float | None:
        """Return the probability of a generated element in a round; None where all examples are met alike."""
        if round < self.pretrain:
            return 1.0
        return 0.0 if self.pretrain and self.p_generated is None else self.p_generated

    def steps_matching(self, n_examples: int, n_own: int) -> int:
        """Return the steps of a client by which each of its own examples is met as often as without generated ones.

        >>> LocalSettings(steps=50).steps_matching(40, 10)
        200
        >>> LocalSettings(steps=50, p_generated=0.5).steps_matching(40, 10)
        100
        """
        if not self.match_exposure or not n_own or n_own == n_examples:
            return self.steps
        if self.p_generated is not None:
            return round(self.steps / (1 - self.p_generated))
        return round(self.steps * n_examples / n_own)

    def steps_of(self, n_examples: int, *, selections: Rational) -> int:
        """Return the steps in a round of a client that is expected to be sampled so many times in the run.

        ceil((epochs n_i / selections) / (batch accumulation)), the dynamic local steps of FedLLM-Bench
        (https://arxiv.org/abs/2406.04845) for clients of few preference pairs.

        >>> settings = LocalSettings(epochs=3, batch=8)
        >>> [settings.steps_of(n, selections=Rational(200 * 10, 747)) for n in (13, 154)]
        [2, 22]
        """
        if not self.epochs:
            return self.steps
        # In fractions: rounded quotients come out one step too high or too low where the exact one is whole.
        passes = Rational(str(self.epochs)) / selections
        return max(1, math.ceil(passes * n_examples / (self.batch * self.accumulation)))
