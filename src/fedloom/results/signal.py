"""Whether attacks on membership found anything at all: without a signal nothing follows for privacy."""

from collections.abc import Mapping

from fedloom.results.estimates import Where, estimate
from fedloom.results.outcome import Outcome

__all__ = ["signal_lines"]

LEAST = 0.55
"""AUC of a model without protection below which an attack that finds less elsewhere proves nothing."""
MOST_CONTROL = 0.03
"""How far from 0.5 the AUC may lie on examples that no model saw."""


def signal_lines(runs: Mapping[int, Outcome]) -> list[str]:
    """Return a line that says what the runs of one kind tell of membership inference; none where it was not tried."""
    where = Where("membership")
    found, control = (estimate([runs], where, score) for score in ("membership_auc", "membership_unseen"))
    if found is None or control is None:
        return []
    told = f"membership inference: AUC {found:.3f}, {control:.3f} on examples that no model saw"
    if found.value < LEAST:
        return [f"{told}; no signal: no privacy claim"]
    return [f"{told}; the control is off: no privacy claim" if abs(control.value - 0.5) > MOST_CONTROL else told]
