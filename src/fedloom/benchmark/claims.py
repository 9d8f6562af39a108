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
from fedloom.benchmark.suite import BASE, Claim, SuiteOutcome
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
    needed = [method for method in (*claim.methods, claim.than) if method and method != BASE]
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
    places = list(_places(found, claim, data))
    if not places:
        return Decision(claim.text, "not decided", f"no question has the tag '{claim.groups}'", ())
    if claim.kind == "none_best":
        return _none_best(found, claim, places)
    needed = [(method, claim.than, place) for method in claim.methods for place in places]
    strict = _level(len(needed))
    plain, corrected = ([_difference(found, claim, *one, level) for one in needed] for level in (LEVEL, strict))
    if claim.kind == "above_somewhere":
        return _somewhere(claim, plain, corrected, strict)
    return _everywhere(claim, plain, corrected, strict)


def _everywhere(claim: Claim, parts: Sequence[Estimate], corrected: Sequence[Estimate], strict: float) -> Decision:
    """Decide whether every difference lies above the margin, or below it."""
    if claim.kind == "above":
        weakest = min(parts, key=_low)
        holds = all(part.interval.low > claim.margin for part in parts)
        fails = any(part.interval.high <= claim.margin for part in corrected)
    else:
        weakest = max(parts, key=lambda part: part.interval.high)
        holds = all(part.interval.high <= claim.margin for part in parts)
        fails = any(part.interval.low > claim.margin for part in corrected)
    side, which = ("above", "lowest ") if claim.kind == "above" else ("at most", "highest ")
    reason = f"{which * (len(parts) > 1)}{_told(weakest)}, needed {side} {claim.margin:g}"
    if fails and len(parts) > 1:
        reason += f"; one lies on the other side ({_corrected(strict)})"
    return Decision(claim.text, _state(holds=holds, fails=fails), reason, tuple(parts))


def _somewhere(claim: Claim, plain: Sequence[Estimate], parts: Sequence[Estimate], strict: float) -> Decision:
    """Decide whether any difference on any group lies above the margin."""
    best, above = max(parts, key=_low), sum(part.interval.low > claim.margin for part in parts)
    state = _state(holds=above > 0, fails=all(part.interval.high <= claim.margin for part in plain))
    told = f"best {_told(best)}, needed above {claim.margin:g}, so on {above} of {len(parts)}"
    return Decision(claim.text, state, f"{told} ({_corrected(strict)})", tuple(parts))


def _none_best(found: SuiteOutcome, claim: Claim, places: Sequence[_Place]) -> Decision:
    """Decide whether every method is beaten by another one on some group."""
    level, strict = _level(len(places) * (len(claim.methods) - 1)), _level(len(claim.methods))
    beaten = [max(_rivals(found, claim, places, method, level), key=_low) for method in claim.methods]
    best = [_rivals(found, claim, places, method, strict) for method in claim.methods]
    least, count = min(beaten, key=_low), sum(part.interval.low > 0 for part in beaten)
    fails = any(all(part.interval.high < 0 for part in parts) for parts in best)
    reason = f"{count} of {len(beaten)} are beaten somewhere, least surely {_told(least)} ({_corrected(level)})"
    return Decision(claim.text, _state(holds=count == len(beaten), fails=fails), reason, tuple(beaten))


def _rivals(found: SuiteOutcome, claim: Claim, places: Sequence[_Place], method: str, level: float) -> list[Estimate]:
    """Return by how much each other method beats a method on each group."""
    # Of a score of which less is better, who beats another has less.
    signs = [direction(claim.score or found.suite.headline(place.data[0])) for place in places]
    return [
        _difference(found, claim, *((rival, method) if sign >= 0 else (method, rival)), place, level)
        for place, sign in zip(places, signs, strict=True)
        for rival in claim.methods
        if rival != method
    ]


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


def _state(*, holds: bool, fails: bool) -> State:
    return "holds" if holds else "does not hold" if fails else "not decided"


def _low(part: Estimate) -> float:
    return part.interval.low


def _told(part: Estimate) -> str:
    return f"{part['what']} {part.interval:+.3f}"


def _corrected(level: float) -> str:
    return f"intervals of {100 * level:.2f} %"
