"""How a classifier fares class by class."""

from fedloom.evaluation.held_out import group_means
from fedloom.results.outcome import Outcome

__all__ = ["class_lines"]

_MANY = 40  # classes beyond which a line is none


def class_lines(found: Outcome) -> list[str]:
    """Return a line with the accuracy on each class of the common test, the worst first; none where no run tells it."""
    final = found.results.get("final", ())
    asked = [one for one in final if one.set == "test" and "label" in one.tags and "accuracy" in one.scores]
    means = group_means(asked, "accuracy", lambda one: one.tags["label"])
    ranked = sorted(means.items(), key=lambda pair: (pair[1].value, pair[0]))
    if not 1 < len(ranked) <= _MANY:
        return []
    return ["accuracy by class: " + ", ".join(f"{label} {mean.value:.3f}" for label, mean in ranked)]
