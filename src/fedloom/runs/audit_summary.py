"""What an audit has found, as lines of text."""

from collections.abc import Mapping
from typing import Any

from fedloom.runs.audit_releases import CONFIDENCE

__all__ = ["summary"]


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return what an audit has found as lines of text."""
    releases = _releases(found["releases"]) if "releases" in found else []
    if "canaries" not in found:
        return [*_loudly(found["noise"]), *releases, f"            {_verdict(found)}"]
    bits, planted = found["exposure_bits"], found["canaries"]
    return [
        *_loudly(found["noise"]),
        *releases,
        f"canaries    {planted['included']} of {planted['all']} included, in {planted['clients']} clients",
        f"stated      {_stated(found['stated'])}",
        *(
            f"{_bound(name, bound)} ({bound['correct']} of {bound['guesses']} guesses right)"
            for name, bound in found["bounds"].items()
        ),
        f"            {_verdict(found)}",
        f"exposure    mean {bits['mean']:.2f} bits (1.44 by chance), max {bits['max']:.2f} of {bits['most']:.2f}",
        *map(_membership, found["membership"]),
    ]


def _releases(found: Mapping[str, Any]) -> list[str]:
    """Return what was found in the releases as lines of text."""
    power = found["power"]
    seen = (
        f"would likely have refuted a true epsilon of {power['epsilon']:.2f} or more (noise x {power['noise']:.2f})"
        if power
        else "none: no leak would have been told with so few canaries; raise --releases"
    )
    plural = "s" if found["trainings"] > 1 else ""
    return [
        f"releases    {found['trials']} canaries of unit {found['unit']} in {found['trainings']} training{plural}; "
        f"stated epsilon {found['stated']:.3f} at delta {found['delta']:.2g}",
        *(_bound(name, bound) for name, bound in found["bounds"].items()),
        f"power       {seen}",
    ]


def _loudly(noise: str) -> list[str]:
    if noise == "removed":
        return [
            "NOT PRIVATE: the noise was multiplied by 0; the epsilon stated below is that of the run with its noise."
        ]
    return ["NOT PRIVATE: the run has no privacy."] if noise == "none" else []


def _stated(card: Mapping[str, Any] | None) -> str:
    if card is None:
        return "epsilon infinity: nothing is protected"
    spent = ", ".join(f"{value:.3f} ({name})" for name, value in card["epsilon"].items())
    return (
        f"epsilon {spent} at delta {card['delta']:.2g}, the largest of {card['guards']} clients; noise multiplier "
        f"{card['smallest_noise_multiplier']:.3f}, {card['uses']} uses"
    )


def _verdict(found: Mapping[str, Any]) -> str:
    if not found["refuted"]:
        return "the stated epsilon is not refuted"
    if found["noise"] == "removed":
        return "above the stated epsilon, which does not hold without the noise"
    return "ABOVE THE STATED EPSILON: once in twenty audits by chance, more often by a fault of the implementation"


def _bound(name: str, bound: Mapping[str, Any]) -> str:
    return f"found       epsilon >= {bound['epsilon']:.3f} at {CONFIDENCE:.1%} confidence by {name}"


def _membership(row: Mapping[str, Any]) -> str:
    auc, rate = row["auc"], row["true_positive_rate"]
    return (
        f"membership  of {row['of']} by {row['by']}: AUC {_interval(auc)}, true positives at "
        f"{row['false_positive_rate']:.0%} false ones {_interval(rate)} ({row['n_members']} against {row['n_others']})"
    )


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
