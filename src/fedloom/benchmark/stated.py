"""What a suite file states besides its runs: claims of the scores, and control arms beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedloom.base.errors import ConfigError

__all__ = ["BASE", "Claim", "Control"]

BASE = "base"
"""What a claim compares with if it is the model before training."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is claimed of the scores, to be decided by intervals.

    `above`: each of `methods` scores more than `than`, by more than `margin` (below 0: it loses at most that much).
    `not_above`: each scores at most `margin` more than `than`. `above_somewhere`: one of `methods` is above `than` by
    more than `margin` on at least one group. `none_best`: each of `methods` is worse than another of them on some
    group. All but the last take more for better: of a loss, turn the claim round.
    """

    text: str
    kind: Literal["above", "not_above", "above_somewhere", "none_best"]
    methods: tuple[str, ...]
    than: str = ""
    """A method, or "base": the same method's model before training."""
    margin: float = 0.0
    beside: str = ""
    """A control method that is told in the same sentence: what it scores less each of `methods`."""
    score: str = ""
    """Left out: what the suite ranks by."""
    set: Literal["test", "validation", "membership"] = "test"
    """Of `membership` the questions are the clients: how well their examples are told from others'."""
    where: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tags that the questions have."""
    data: tuple[str, ...] = ()
    """Left out: all."""
    over: Literal["mean", "each"] = "mean"
    """Whether `above` and `not_above` are about the mean of the data sets, or about each."""
    groups: str = "data"
    """What the groups of the other two kinds are: data sets, or the values of a tag within each data set."""
    models: Literal["all", "own"] = "all"
    """Which models answer where there are several: all of them, or those whose own data are of the question's group."""
    facts: Literal["all", "own", "others"] = "all"
    """Which questions of the test count for a client's model: all, or those about what its own client's records are
    about (`evaluation.cluster`), or the rest. A model that clients share counts once for each of them."""

    def __post_init__(self) -> None:
        if not self.methods or (self.kind == "none_best" and len(self.methods) < 2):
            raise ConfigError(f"methods: found {list(self.methods)}, allowed is at least one; for 'none_best' two.")
        if (self.kind == "none_best") == bool(self.than):
            raise ConfigError(f"than: found '{self.than}' for '{self.kind}'; all kinds but 'none_best' need one.")
        if self.beside and self.kind != "above":
            raise ConfigError(f"beside: found '{self.beside}' for '{self.kind}', allowed is it for 'above' alone.")
        if self.models == "own" and self.groups == "data":
            raise ConfigError("models: found 'own' without a tag in `groups` that tells whose own a question is.")
        if self.facts != "all" and (self.models == "own" or self.set != "test"):
            raise ConfigError(f"facts: found '{self.facts}' beside models or set; allowed is all models on the test.")


@dataclass(frozen=True, kw_only=True)
class Control:
    """An arm without which the claims are not to be read, and the method that is it; without one, why not."""

    arm: str
    method: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if not self.arm or bool(self.method) == bool(self.why):
            raise ConfigError(
                f"arm: found '{self.arm}' with method = '{self.method}' and why = '{self.why}', allowed is an arm with "
                "its method, or with why there is none."
            )
