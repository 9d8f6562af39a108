"""Claims of a suite, decided by intervals: each holds, does not hold, or the runs do not decide it.

That something is so everywhere needs every interval on the right side, and no correction (an intersection of hypotheses
is rejected only if each is). That it is so somewhere is looked for in many places: there the intervals are those of the
level 1 - 0.05 / places (Bonferroni), so that all of them together err in at most one of twenty suites. What holds
everywhere fails somewhere, and the other way round: the side that needs one place alone is the one corrected.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fedloom.base.errors import DataError, RunError
from fedloom.base.files import plain
from fedloom.benchmark.ranking import ALL, gap
from fedloom.benchmark.suite import BASE, Claim, SuiteOutcome
from fedloom.benchmark.summary import Summary, languages_of_models, summarise
from fedloom.evaluation.held_out import Scored
from fedloom.evaluation.statistics import LEVEL, Interval
from fedloom.results.outcome import Asked, Outcome
from fedloom.results.per_client import by_knowledge, direction

__all__ = ["Conclusion", "Decision", "Part", "conclude", "decide"]

State = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Part:
    """One of the differences that a claim rests on."""

    what: str
    difference: Interval


@dataclass(frozen=True)
class Decision:
    """A claim, what became of it, and the differences that it rests on."""

    text: str
    state: State
    reason: str
    parts: tuple[Part, ...]

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
        return self.summary.record() | {"claims": [plain(one) for one in self.decisions]}


def conclude(study: SuiteOutcome) -> Conclusion:
    """Return the summary of the finished cells and what they say of the claims."""
    return Conclusion(study, summarise(study), tuple(decide(study, claim) for claim in study.suite.claims))


@dataclass(frozen=True)
class _Group:
    """Questions of a data set: all that the claim is about, or those with one value of a tag."""

    data: str
    tag: str = ""
    value: str = ""

    @property
    def label(self) -> str:
        return f"{self.data}, {self.value}" if self.value else self.data


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
    if claim.kind in ("above", "not_above"):
        return _everywhere(found, claim, data)
    groups = list(_groups(found, claim, data))
    if not groups:
        return Decision(claim.text, "not decided", f"no question has the tag '{claim.groups}'", ())
    return _somewhere(found, claim, groups) if claim.kind == "above_somewhere" else _none_best(found, claim, groups)


def _everywhere(found: SuiteOutcome, claim: Claim, data: Sequence[str]) -> Decision:
    """Decide whether every difference lies above the margin, or below it."""
    places = [data] if claim.over == "mean" else [(one,) for one in data]
    needed = [(method, place) for method in claim.methods for place in places]
    parts = [_over(found, claim, *each, LEVEL) for each in needed]
    strict = _level(len(needed))
    corrected = [_over(found, claim, *each, strict) for each in needed]
    if claim.kind == "above":
        weakest = min(parts, key=lambda part: part.difference.low)
        holds = all(part.difference.low > claim.margin for part in parts)
        fails = any(part.difference.high <= claim.margin for part in corrected)
    else:
        weakest = max(parts, key=lambda part: part.difference.high)
        holds = all(part.difference.high <= claim.margin for part in parts)
        fails = any(part.difference.low > claim.margin for part in corrected)
    side, which = ("above", "lowest ") if claim.kind == "above" else ("at most", "highest ")
    reason = f"{which * (len(parts) > 1)}{_told(weakest)}, needed {side} {claim.margin:g}"
    if fails and len(parts) > 1:
        reason += f"; one lies on the other side ({_corrected(strict)})"
    return Decision(claim.text, _state(holds=holds, fails=fails), reason, tuple(parts))


def _over(found: SuiteOutcome, claim: Claim, method: str, place: Sequence[str], level: float) -> Part:
    difference = gap(found, place, method, claim.than, score=claim.score, choose=_Chooser(claim), level=level)
    return Part(f"{method} - {claim.than} on {place[0] if len(place) == 1 else ALL}", difference)


def _level(n_places: int) -> float:
    """Return the level of intervals of which none errs in n places together (Bonferroni)."""
    return 1 - (1 - LEVEL) / n_places


def _state(*, holds: bool, fails: bool) -> State:
    return "holds" if holds else "does not hold" if fails else "not decided"


def _told(part: Part) -> str:
    return f"{part.what} {part.difference:+.3f}"


def _somewhere(found: SuiteOutcome, claim: Claim, groups: Sequence[_Group]) -> Decision:
    """Decide whether any difference on any group lies above the margin."""
    places = [(method, group) for method in claim.methods for group in groups]
    level = _level(len(places))
    parts = [_part(found, claim, group, (method, claim.than), level) for method, group in places]
    uncorrected = [_part(found, claim, group, (method, claim.than), LEVEL) for method, group in places]
    best = max(parts, key=lambda part: part.difference.low)
    state = _state(
        holds=best.difference.low > claim.margin,
        fails=all(part.difference.high <= claim.margin for part in uncorrected),
    )
    above = sum(part.difference.low > claim.margin for part in parts)
    reason = f"best {_told(best)}, needed above {claim.margin:g}, so on {above} of {len(parts)} ({_corrected(level)})"
    return Decision(claim.text, state, reason, tuple(parts))


def _none_best(found: SuiteOutcome, claim: Claim, groups: Sequence[_Group]) -> Decision:
    """Decide whether every method is beaten by another one on some group."""
    level, strict = _level(len(groups) * (len(claim.methods) - 1)), _level(len(claim.methods))
    rivals = {method: _rivals(found, claim, groups, method, level) for method in claim.methods}
    best = [_rivals(found, claim, groups, method, strict) for method in claim.methods]
    beaten = {method: max(parts, key=lambda part: part.difference.low) for method, parts in rivals.items()}
    least = min(beaten.values(), key=lambda part: part.difference.low)
    state = _state(
        holds=least.difference.low > 0,
        fails=any(all(part.difference.high < 0 for part in parts) for parts in best),
    )
    count = sum(part.difference.low > 0 for part in beaten.values())
    reason = f"{count} of {len(beaten)} are beaten somewhere, least surely {_told(least)} ({_corrected(level)})"
    return Decision(claim.text, state, reason, tuple(beaten.values()))


def _rivals(found: SuiteOutcome, claim: Claim, groups: Sequence[_Group], method: str, level: float) -> list[Part]:
    """Return by how much each other method beats a method on each group."""
    return [
        # Of a score of which less is better, who beats another has less.
        _part(found, claim, group, (rival, method) if _sign(found, claim, group) >= 0 else (method, rival), level)
        for group in groups
        for rival in claim.methods
        if rival != method
    ]


def _sign(found: SuiteOutcome, claim: Claim, group: _Group) -> int:
    return direction(claim.score or found.suite.headline(group.data))


def _corrected(level: float) -> str:
    return f"intervals of {100 * level:.2f} %"


def _part(found: SuiteOutcome, claim: Claim, group: _Group, pair: tuple[str, str], level: float) -> Part:
    first, second = pair
    difference = gap(found, [group.data], first, second, score=claim.score, choose=_Chooser(claim, group), level=level)
    return Part(f"{first} - {second} on {group.label}", difference)


def _groups(found: SuiteOutcome, claim: Claim, data: Sequence[str]) -> Iterator[_Group]:
    """Yield the groups of questions that a claim is about: data sets, or each value of a tag in each of them."""
    for name in data:
        if claim.groups == "data":
            yield _Group(name)
            continue
        run = next(iter(found.runs(name, claim.methods[0]).values()))
        final = _Chooser(claim)(run).results["final"]
        tagged = [one.tags[claim.groups] for one in final if claim.groups in one.tags]
        yield from (_Group(name, claim.groups, value) for value in dict.fromkeys(tagged))


@dataclass(frozen=True)
class _Chooser:
    """Chooses the questions of a claim, and the models of a run that answer them."""

    claim: Claim
    group: _Group | None = None

    def __call__(self, run: Outcome) -> Outcome:
        """Return the part of the run: the set, the tags, the group, and the models whose own the questions are."""
        claim, tags = self.claim, dict(self.claim.where)
        if self.group and self.group.tag:
            tags[self.group.tag] = self.group.value
        asked = Asked(claim.set, tuple(sorted(tags.items())))
        known = run if claim.facts == "all" else by_knowledge(run, claim.facts)
        if claim.models == "own":
            return known.part(_OwnModels(asked, claim.groups, languages_of_models(run, claim.groups)))
        return known.part(asked)


@dataclass(frozen=True)
class _OwnModels:
    """Chooses of some questions those put to a model whose own clients have the question's value of a tag."""

    asked: Asked
    tag: str
    own: Mapping[str, frozenset[str]] = field(compare=False)  # follows from the run, and parts are kept by run

    def __call__(self, one: Scored) -> bool:
        """Return whether a scored example is among them; a model that all share is everybody's own."""
        return self.asked(one) and (not one.owner or one.tags.get(self.tag) in self.own[one.owner])
