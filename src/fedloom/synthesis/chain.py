"""Candidates through a chain of filters, with a verdict of each for the record: accepted + rejected = generated."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedloom.base.errors import ConfigError
from fedloom.contracts.evaluation import Completer
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict

__all__ = ["Judged", "counts", "judged", "judges", "refuse_blind", "trained_on"]


@dataclass
class Judged:
    """A candidate with the verdicts on it, in the order of the chain."""

    candidate: Candidate
    verdicts: dict[str, Verdict] = field(default_factory=dict[str, Verdict])

    @property
    def reason(self) -> str:
        """Why it was dropped; "" for one that is kept."""
        return next((one.reason for one in self.verdicts.values() if one.reason), "")

    @property
    def record(self) -> dict[str, Any]:
        """The verdicts by filter, for a line of JSON."""
        return {name: {"reason": one.reason, "score": one.score} for name, one in self.verdicts.items()}


def judged(
    candidates: Sequence[Candidate], lost: Mapping[str, str], filters: Sequence[Filter], around: Around
) -> list[Judged]:
    """Return one client's candidates with their verdicts; each filter sees what all before it have kept.

    `lost` are candidates, by id, of which there is no text to judge, with the reason.
    """
    found = [Judged(one, {"generation": Verdict(lost[one.id])} if one.id in lost else {}) for one in candidates]
    for name, step in zip(_names(filters), filters, strict=True):
        left = [one for one in found if not one.reason]
        if not left:
            break
        for one, verdict in zip(left, step([one.candidate for one in left], around), strict=True):
            one.verdicts[name] = verdict
    return found


def _names(filters: Sequence[Filter]) -> list[str]:
    """Return what each step is called in records: by its name, and from the second one of a name on by a number."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    for step in filters:
        seen[step.name] += 1
        names.append(step.name if seen[step.name] == 1 else f"{step.name}_{seen[step.name]}")
    return names


def refuse_blind(key: str, filters: Sequence[Filter], there: Collection[str]) -> None:
    """Refuse filters that would drop everything, for want of what they look at."""
    for step in filters:
        if missing := sorted(step.looks_at - set(there)):
            raise ConfigError(
                f"{key}: '{step.name}' looks at {', '.join(missing)} of a candidate, allowed here is what looks at "
                f"{', '.join(there) or 'the instruction alone'}; leave it out."
            )


def judges(filters: Sequence[Filter]) -> list[Completer]:
    """Return whom filters show candidates to, each once."""
    return list({judge.identity(): judge for step in filters if (judge := step.asks())}.values())


def trained_on(filters: Sequence[Filter]) -> tuple[str, ...]:
    """Return the data sets that filters, or whom they ask, were trained on."""
    return tuple(name for step in filters for name in step.trained_on_sets())


def counts(found: Sequence[Judged]) -> dict[str, int]:
    """Return how many candidates were generated, how many are kept, and how many were dropped for each reason."""
    reasons = Counter(one.reason for one in found if one.reason)
    kept = len(found) - reasons.total()
    return {"generated": len(found), "accepted": kept} | {f"rejected_{name}": reasons[name] for name in sorted(reasons)}
