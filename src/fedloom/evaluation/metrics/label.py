"""Accuracy of labels, read where an answer begins: one rule for all data sets, and no default.

Source: the finance sentiment sets of FinGPT as OpenFedLLM evaluates them (Ye et al., 2024,
https://arxiv.org/abs/2402.06954).

Deviations: published, labels are searched anywhere, in another order for one of the sets, and what holds none counts
as neutral. Here an answer that begins with no label is wrong; `label_unparsed` counts these apart.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import plugin
from fedloom.evaluation.metrics.texts import OfReference
from fedloom.text.words import first_label

__all__ = ["LabelMatch", "LabelUnparsed"]


@dataclass(frozen=True, kw_only=True)
class OfLabel(OfReference):
    """A score of the label with which an answer begins."""

    unparsed: ClassVar[bool] = False
    """Whether the score is 1 where no label is found, in place of where the one wanted is."""

    labels: tuple[str, ...] = ("negative", "neutral", "positive")
    """The labels that are looked for."""

    def check(self) -> None:
        """Refuse labels that are blank, equal or fewer than two."""
        plain = [label.casefold() for label in self.labels]
        if len(set(plain)) < max(2, len(plain)) or not all(label.strip() == label != "" for label in plain):
            raise ConfigError(
                f"labels: found {list(self.labels)}, allowed are two or more different ones without outer blanks."
            )

    def score(self, text: str, reference: str) -> float | None:
        """Return 0 or 1; None if the reference begins with no label."""
        found, wanted = (first_label(one, self.labels) for one in (text, reference))
        return None if wanted is None else float(found == (None if self.unparsed else wanted))


@plugin("label_match")
class LabelMatch(OfLabel):
    """1 if prediction and reference begin with the same label, else 0."""


@plugin("label_unparsed")
class LabelUnparsed(OfLabel):
    """1 if the prediction begins with no label where the reference does, else 0: what `label_match` counts unread."""

    higher_is_better = False
    unparsed = True
