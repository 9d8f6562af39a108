"""Clients of equal size and unequal content: each draws its own mixture of classes from a Dirichlet distribution.

Hsu, Qi and Brown, 2019, https://arxiv.org/abs/1909.06335, section 3: client k draws q_k ~ Dirichlet(alpha * p), where
p is the mixture of the whole; alpha -> infinity gives every client the mixture p, alpha -> 0 one class each.

Deviations: the clients draw their examples in turns, one each, instead of one client after another, so that what is
left over when classes run out is spread over all clients; and p is the mixture of the data, not uniform.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

from fedloom.base.errors import DataError
from fedloom.base.plugin import AtLeast, Positive, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Partition
from fedloom.data.partitions._deal import check_counts, client_names, dirichlet, tag_of

__all__ = ["Dirichlet"]

_NUMBERS = ("length", "quality")


@plugin("dirichlet")
class Dirichlet(Partition):
    """Sizes differ by at most one; how unequal they are is the matter of `quantity_skew`.

    Classes are the values of a tag (`label`: the one that `tag` names; `topic`: the tag topic), or quantiles of a
    number: the length in characters, or the tag quality.
    """

    alpha: Positive = 0.5
    """Concentration: small ones make clients unlike, large ones alike."""
    by: Literal["label", "topic", "length", "quality"] = "topic"
    """What the classes are that are dealt unevenly."""
    tag: str = "label"
    """The tag that by = "label" reads."""
    bins: AtLeast = 5
    """Quantiles of a number; equal numbers always share a bin, so there may be fewer."""

    def heterogeneity(self) -> str:
        """Return the skew of what is dealt unevenly."""
        return f"{self.tag if self.by == 'label' else self.by} skew"

    def __call__(self, examples: Sequence[Example], n_clients: int, rng: Random) -> dict[str, list[int]]:
        """Return the indices of each client; a missing tag and more clients than examples are refused."""
        check_counts(self.name, len(examples), n_clients)
        piles: dict[str, list[int]] = {}
        for index, label in enumerate(self._labels(examples)):
            piles.setdefault(label, []).append(index)
        prior = {label: len(pile) / len(examples) for label, pile in piles.items()}
        for pile in piles.values():
            rng.shuffle(pile)
        mixtures = {name: self._mixture(prior, rng) for name in client_names(n_clients)}
        return _deal(piles, mixtures, rng)

    def brings_in(self, n_clients: int) -> str:
        """Return `by` where it is quantiles of a number, whose edges follow from all records; else chance deals."""
        return f"partition.by = '{self.by}', whose bins follow from all records," if self.by in _NUMBERS else ""

    def _mixture(self, prior: Mapping[str, float], rng: Random) -> dict[str, float]:
        shares = dirichlet([self.alpha * share for share in prior.values()], rng)
        return dict(zip(prior, shares, strict=True))

    def _labels(self, examples: Sequence[Example]) -> list[str]:
        if self.by == "length":
            return _quantiles([len(example.text) for example in examples], self.bins)
        if self.by == "quality":
            return _quantiles([_quality(example, index) for index, example in enumerate(examples)], self.bins)
        tag = self.tag if self.by == "label" else "topic"
        return [tag_of(example, tag, index) for index, example in enumerate(examples)]


def _deal(
    piles: Mapping[str, list[int]], mixtures: Mapping[str, Mapping[str, float]], rng: Random
) -> dict[str, list[int]]:
    """Return the examples that the clients draw in turns until all piles are empty; `piles` is used up."""
    parts: dict[str, list[int]] = {name: [] for name in mixtures}
    left = sum(map(len, piles.values()))
    while left:
        for name in list(parts)[:left]:
            parts[name].append(piles[_draw(piles, mixtures[name], rng)].pop())
        left -= min(left, len(parts))
    return {name: sorted(indices) for name, indices in parts.items()}


def _draw(piles: Mapping[str, list[int]], mixture: Mapping[str, float], rng: Random) -> str:
    """Return a class that is not used up, by the client's mixture; by what is left where that has no mass."""
    labels = [label for label, pile in piles.items() if pile]
    weights = [mixture[label] for label in labels]
    if not sum(weights):
        weights = [float(len(piles[label])) for label in labels]
    return rng.choices(labels, weights)[0]


def _quantiles(numbers: Sequence[float], bins: int) -> list[str]:
    """Return the bin of each number: how many of the bins - 1 inner quantiles lie at or below it."""
    ordered = sorted(numbers)
    edges = [ordered[len(ordered) * k // bins] for k in range(1, bins)]
    return [str(sum(edge <= number for edge in edges)) for number in numbers]


def _quality(example: Example, index: int) -> float:
    text = tag_of(example, "quality", index)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise DataError(f"example {index}: the tag 'quality' is '{text}', allowed is a finite number.")
    return value
