"""From a budget to requests: how many samples of each class, in which words, and which private examples guide them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError
from fedloom.contracts.examples import Example
from fedloom.contracts.generation import Generator, Guidance, Place, Prompter, Request
from fedloom.contracts.labelled import Picture, Row
from fedloom.contracts.synthesis import Allocator

__all__ = ["Cost", "Ordered", "Ordering", "checked", "published", "size"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What generating came to besides time."""

    samples: int
    """Asked for."""
    tokens: int
    """Of prompts and completions, where there are any."""
    bytes: int
    """Of the samples that came."""
    model_bytes: int
    """0 where the generator does not know it."""

    @classmethod
    def of(cls, samples: Sequence[Example | None], tokens: int, generator: Generator, place: Place) -> "Cost":
        """Return the cost of samples."""
        n_bytes = sum(size(one) for one in samples if one is not None)
        return cls(samples=len(samples), tokens=tokens, bytes=n_bytes, model_bytes=generator.model_bytes(place))


@dataclass(frozen=True)
class Ordered:
    """A request with what a manifest says of it."""

    request: Request
    source: int | None
    """Place of the guide among the client's examples."""
    fallback: bool
    """Whether a guide was asked for and the client has none of the class."""


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """How a client's budget becomes requests."""

    prompter: Prompter
    by: str
    """Tag of the class."""
    guidance: Guidance = "prompt"
    strength: float = 1.0

    def amounts(
        self, allocator: Allocator, total: int, labels: Sequence[str], own: Sequence[Example]
    ) -> dict[str, int]:
        """Return how many samples of each class: of `real` none of a class that the client has not.

        The budget is dealt over the other classes then, so that it is as large as that of other guidances.
        """
        counts = Counter(one.tags.get(self.by, "") for one in own)
        dealt = [label for label in labels if self.guidance != "real" or counts[label]]
        amounts = dict(zip(dealt, allocator(total, [counts[label] for label in dealt]), strict=True))
        return {label: amounts.get(label, 0) for label in labels}

    def ordered(
        self, amounts: Mapping[str, int], own: Sequence[Example], seed: int, owner: str, place: Place
    ) -> Iterator[Ordered]:
        """Yield the requests, class by class; each is drawn by a seed of its own."""
        for label, count in amounts.items():
            prompts = self.prompter(label, count, rng.seed_of(seed, "prompts", owner), place) if count else []
            held = [at for at, one in enumerate(own) if one.tags.get(self.by) == label]
            guides = self._guides(held, count, rng.python_random(seed, "guides", owner, label))
            for at, (prompt, guide) in enumerate(zip(prompts, guides, strict=True)):
                request = Request(
                    label=label,
                    prompt=prompt,
                    seed=rng.seed_of(seed, "generated", owner, label, at),
                    guide=None if guide is None else own[guide],
                    strength=1.0 if guide is None else self.strength,
                )
                yield Ordered(request, guide, guide is None and self.guidance != "prompt")

    def _guides(self, held: Sequence[int], count: int, random: Random) -> Sequence[int | None]:
        """Return the place of each sample's guide: whole shuffles of the class, one after another."""
        if self.guidance == "prompt" or not held:
            return [None] * count
        shuffles = -(-count // len(held))
        return [at for _ in range(shuffles) for at in random.sample(held, len(held))][:count]


def published(labels: Sequence[str], public: Sequence[Example], by: str) -> Sequence[str]:
    """Return the classes that everybody is told: those given, or those of the public examples; none are refused."""
    found = labels or sorted({one.tags[by] for one in public if by in one.tags})
    if not found:
        raise ConfigError("labels: missing, and no public example has a class; name all classes of the task.")
    return found


def size(one: Example) -> int:
    """Return the bytes of an example."""
    if isinstance(one, Picture):
        return len(one.pixels)
    return 4 * len(one.values) if isinstance(one, Row) else len(one.text.encode(errors="replace"))


def checked(
    samples: Sequence[Example | None],
    asked: Sequence[Ordered],
    others: Sequence[Example],
    generator: Generator,
    by: str,
) -> Sequence[Example | None]:
    """Return the samples; of another number, kind, shape or class than asked for, or not finite, they are refused.

    They are to be like the `others`, of which the first stands for all.
    """
    where = f"generator '{generator.name}'"
    if len(samples) != len(asked):
        raise DataError(f"{where}: {len(samples)} samples came for {len(asked)} requests; allowed is one each.")
    for at, (one, order) in enumerate(zip(samples, asked, strict=True)):
        if one is None:
            continue
        if others and _shape(one) != _shape(others[0]):
            raise DataError(
                f"{where}: sample {at} is {_shape(one)}, the client's own are {_shape(others[0])}; bring both to one "
                "kind and size."
            )
        if one.tags.get(by) != order.request.label:
            raise DataError(
                f"{where}: sample {at} is of class '{one.tags.get(by, '')}', asked for was '{order.request.label}'; "
                "its classes are not the task's."
            )
        if isinstance(one, Row) and not np.isfinite(one.inputs).all():
            raise DataError(f"{where}: sample {at} holds NaN or infinity, allowed are finite numbers.")
    return samples


def _shape(one: Example) -> str:
    shape = f" of {list(one.inputs.shape)}" if isinstance(one, Picture | Row) else ""
    return f"a {type(one).__name__}{shape}"
