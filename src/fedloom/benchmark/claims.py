"""Claims of a suite, decided by intervals: each holds, does not hold, or the runs do not decide it.

That something is so everywhere needs every interval on the right side, and no correction (an intersection of hypotheses
is rejected only if each is). That it is so somewhere is looked for in many places: there the intervals are those of the
level 1 - 0.05 / places (Bonferroni), so that all of them together err in at most one of twenty suites. What holds
everywhere fails somewhere, and the other way round: the side that needs one place alone is the one corrected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedloom.base.errors import DataError, RunError
from fedloom.benchmark.ranking import ALL, gap
from fedloom.benchmark.stated import BASE, Claim
from fedloom.benchmark.suite import SuiteOutcome
from fedloom.benchmark.summary import Summary, summarise
from fedloom.evaluation.intervals import LEVEL
from fedloom.results.estimates import Estimate, Where
from fedloom.results.per_client import direction

__all__ = ["Conclusion", "Decision", "conclude", "decide"]

State = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Decision:
    """A claim, what became of it, and the differences that it rests on."""

    text: str
    state: State
    reason: str
    parts: tuple[Estimate, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return vars(self) | {"parts": [part.record("difference") for part in self.parts]}

    @property
    def line(self) -> str:
        """The decision in one line."""
        return f"{self.state}: {self.text}: {self.reason}"


@dataclass(frozen=True)
class Conclusion:
    """What a suite has found: its tables, its JSON and its page all tell this."""

    study: SuiteOutcome
    summary: Summary
    decisions: tuple[Decision, ...]

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return self.summary.record() | {"claims": [one.record() for one in self.decisions]}


def conclude(study: SuiteOutcome) -> Conclusion:
    """Return the summary of the finished cells and what they say of the claims."""
    return Conclusion(study, summarise(study), tuple(decide(study, claim) for claim in study.suite.claims))


@dataclass(frozen=True)
class _Place:
    """Questions that a difference is over: of a data set, of the mean of several, or those with one value of a tag."""

    label: str
    data: Sequence[str]
    where: Where


def decide(found: SuiteOutcome, claim: Claim) -> Decision:
    """Return what the finished cells say of a claim.

    Nothing is decided where a cell it needs is missing, or where a run was asked none of its questions.
    """
    data = claim.data or found.data
    needed = [method for method in (*claim.methods, claim.than, claim.beside) if method and method != BASE]
    missing = [f"{d}/{m}" for d, m, _ in found.missing if d in data and m in needed]
    if missing:
        return Decision(claim.text, "not decided", f"{len(missing)} cells have not ended, first {missing[0]}", ())
    try:
        decided = _decide(found, claim, data)
        return replace(decided, reason=f"{decided.reason}; {_basis(found)}") if decided.parts else decided
    except (DataError, RunError) as error:
        return Decision(claim.text, "not decided", str(error), ())


def _basis(found: SuiteOutcome) -> str:
    n_seeds = len(found.seeds)
    return f"over {n_seeds} seeds" if n_seeds > 1 else "one seed: as sure as its questions let it be"


def _decide(found: SuiteOutcome, claim: Claim, data: Sequence[str]) -> Decision:
    """Decide whether at least one difference of each group is on the claim's side.

    What is so everywhere has groups of one, what is so somewhere one group; that none is best a group for each method.
    """
    groups = _groups(found, claim, list(_places(found, claim, data)))
    if not any(groups):
        return Decision(claim.text, "not decided", f"no question has the tag '{claim.groups}'", ())
    level, strict = _level(len(groups[0])), _level(len(groups))
    told = [[_difference(found, claim, *one, level) for one in group] for group in groups]
    held = sum(any(_on_side(claim, part) for part in group) for group in told)
    corrected = [[_difference(found, claim, *one, strict) for one in group] for group in groups if held < len(groups)]
    fails = any(all(_on_other_side(claim, part) for part in group) for group in corrected)
    state: State = "holds" if held == len(groups) else "does not hold" if fails else "not decided"
    surest = [max(group, key=_low) for group in told]
    if claim.kind == "none_best":
        least = f"least surely {_told(min(surest, key=_low))} ({_corrected(level)})"
        return Decision(claim.text, state, f"{held} of {len(groups)} are beaten somewhere, {least}", tuple(surest))
    parts = tuple(part for group in told for part in group)
    if claim.kind == "above_somewhere":
        count = f"{sum(_on_side(claim, part) for part in parts)} of {len(parts)} ({_corrected(level)})"
        return Decision(
            claim.text, state, f"best {_told(surest[0])}, needed above {claim.margin:g}, so on {count}", parts
        )
    above = claim.kind == "above"
    weakest = min(parts, key=_low) if above else max(parts, key=lambda part: part.interval.high)
    which = ("lowest " if above else "highest ") * (len(parts) > 1)
    reason = f"{which}{_told(weakest)}, needed {'above' if above else 'at most'} {claim.margin:g}"
    if fails and len(parts) > 1:
        reason += f"; one lies on the other side ({_corrected(strict)})"
    reason += "".join(f"; {told}" for told in _beside(found, claim, data)) if claim.beside else ""
    return Decision(claim.text, state, reason, parts)


def _beside(found: SuiteOutcome, claim: Claim, data: Sequence[str]) -> Iterator[str]:
    """Yield what the control is worth beside each method of a claim."""
    for place in _places(found, claim, data):
        for method in claim.methods:
            part = _difference(found, claim, claim.beside, method, place, LEVEL)
            open_ = part.interval.low <= 0 <= part.interval.high
            yield f"{_told(part)}, {'not separable' if open_ else 'apart'}"


def _on_side(claim: Claim, part: Estimate) -> bool:
    if claim.kind == "not_above":
        return part.interval.high <= claim.margin
    return part.interval.low > (claim.margin if claim.than else 0)


def _on_other_side(claim: Claim, part: Estimate) -> bool:
    if claim.kind == "not_above":
        return part.interval.low > claim.margin
    return part.interval.high <= claim.margin if claim.than else part.interval.high < 0


def _groups(found: SuiteOutcome, claim: Claim, places: Sequence[_Place]) -> list[list[tuple[str, str, _Place]]]:
    """Return which method less which is asked of where, in groups of which one has to be on the claim's side."""
    if claim.kind == "none_best":
        # Of a score of which less is better, who beats another has less.
        signs = [direction(claim.score or found.suite.headline(place.data[0])) for place in places]
        return [
            [
                (*((rival, method) if sign >= 0 else (method, rival)), place)
                for place, sign in zip(places, signs, strict=True)
                for rival in claim.methods
                if rival != method
            ]
            for method in claim.methods
        ]
    needed = [(method, claim.than, place) for method in claim.methods for place in places]
    return [needed] if claim.kind == "above_somewhere" else [[one] for one in needed]


def _difference(found: SuiteOutcome, claim: Claim, first: str, second: str, place: _Place, level: float) -> Estimate:
    interval = gap(found, place.data, first, second, score=claim.score, where=place.where, level=level)
    return Estimate({"what": f"{first} - {second} on {place.label}"}, interval)


def _places(found: SuiteOutcome, claim: Claim, data: Sequence[str]) -> Iterator[_Place]:
    """Yield what a claim is about, one by one: data sets or their mean, or each value of a tag in each data set."""
    everywhere, own = claim.kind in ("above", "not_above"), claim.groups if claim.models == "own" else ""
    where = Where(claim.set, tuple(sorted(claim.where.items())), claim.facts, own)
    if everywhere and claim.over == "mean" and len(data) > 1:
        yield _Place(ALL, data, where)
        return
    for name in data:
        if everywhere or claim.groups == "data":
            yield _Place(name, (name,), where)
            continue
        final = next(iter(found.runs(name, claim.methods[0]).values())).part(where).results["final"]
        for value in dict.fromkeys(one.tags[claim.groups] for one in final if claim.groups in one.tags):
            tags = tuple(sorted({**claim.where, claim.groups: value}.items()))
            yield _Place(f"{name}, {value}", (name,), replace(where, tags=tags))


def _level(n_places: int) -> float:
    """Return the level of intervals of which none errs in n places together (Bonferroni)."""
    return 1 - (1 - LEVEL) / n_places


def _low(part: Estimate) -> float:
    return part.interval.low


def _told(part: Estimate) -> str:
    return f"{part['what']} {part.interval:+.3f}"


def _corrected(level: float) -> str:
    return f"intervals of {100 * level:.2f} %"
