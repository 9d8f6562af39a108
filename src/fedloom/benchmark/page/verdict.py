"""The head of a page: one sentence on who wins, by how much, how sure and for which clients, and a few numbers."""

from collections.abc import Sequence

from fedloom.benchmark.page.findings import Findings
from fedloom.benchmark.page.words import bounds, duration, plural, score_name, signed, size, value
from fedloom.benchmark.ranking import ALL, PairRow
from fedloom.data.clients import cut_and_dropped, lost_shares
from fedloom.results.content import stage_of_content
from fedloom.results.signal import signal_lines
from fedloom.runs.accounts import largest_epsilon

__all__ = ["doubts", "facts", "remarks", "sentence"]


def sentence(found: Findings) -> str:
    """Return who wins, by how much, how sure and for which clients, in one sentence."""
    if not found.ranks:
        return f"No method can be ranked{' yet' * bool(found.study.missing)}: {found.unranked}."
    score = score_name(found.score(found.whole))
    where = _where(found)
    gaps = found.gaps[found.whole]
    told = f"{value(found.lead.value.value)} (95 % interval {bounds(found.lead.value)})"
    if found.single:
        return f"{found.best} reaches {told} in {score}{where}, {_to_base(gaps[0])}{_clients(found, 'base')}."
    rivals = [gap for gap in gaps if not found.is_centralised(gap.second)]
    lead = f"{_first(found)} of {len(rivals) + 1} in {score}{where} with {told}"
    return f"{lead}{_sure(rivals)}{_clients(found, rivals[0].second) if rivals else ''}."


def _where(found: Findings) -> str:
    if found.whole == ALL:
        return f" on the mean of {plural(len(found.study.alike), 'data set')}"
    if len(found.study.alike) < 2 and len(found.study.data) > 1:
        return f" on {found.whole}, as the data sets have unlike scores"
    return f" on {found.whole}, for want of runs on the others," if len(found.study.data) > 1 else ""


def _first(found: Findings) -> str:
    """Return who comes first, ties included."""
    first = [row.method for row in found.ranks[found.whole] if row.method in found.first(found.whole)]
    return f"{found.best} comes first" if len(first) < 2 else f"{' and '.join(first)} share the first place"


def _to_base(gap: PairRow) -> str:
    if gap.verdict == "undecided":
        return (
            f"a difference of {signed(gap.difference.value)} ({bounds(gap.difference)}) to the base that is not decided"
        )
    return f"{value(abs(gap.difference.value))} {gap.verdict} than before training ({bounds(gap.difference)})"


def _sure(rivals: Sequence[PairRow]) -> str:
    """Return how far the lead is decided."""
    if not rivals:
        return ""
    following, decided = rivals[0], sum(gap.verdict == "better" for gap in rivals)
    amount = f"{signed(following.difference.value)} ({bounds(following.difference)})"
    if decided == len(rivals):
        return f", decidedly better than all others; the lead over {following.second} is {amount}"
    count = f"{decided} of {len(rivals)} others"
    if following.verdict == "better":
        return f", decidedly better than {count}; the lead over {following.second} is {amount}"
    told = f"; its lead over {following.second}, {amount}, is not decided"
    return f"{told}, but that over {count} is" if decided else told


def _clients(found: Findings, other: str) -> str:
    """Return for how many clients the best is better than another one; counted, not tested."""
    better, worse, total = 0, 0, 0
    for data, own in found.clients.items():
        mine, theirs = own.by_method.get(found.best, {}), own.by_method.get(other, {})
        leads = [found.sign(data) * (mine[client] - theirs[client]) for client in mine if client in theirs]
        better, worse, total = better + sum(d > 0 for d in leads), worse + sum(d < 0 for d in leads), total + len(leads)
    if not total:
        return ""
    rival = "before" if other == "base" else f"with {other}"
    return f"; of {_whose(found, total)}, {better} fare better than {rival} and {worse} worse"


def _whose(found: Findings, total: int) -> str:
    """Return how many clients were counted, and of which seed where each seed has others."""
    own = [one for one in found.clients.values() if one.by_method]
    alone = {one.seeds[0] for one in own if not one.alike}
    if not alone:
        return plural(total, "client")
    if len(alone) == 1 and not any(one.alike for one in own):
        return f"the {plural(total, 'client')} of seed {alone.pop()}"
    return f"{plural(total, 'client')} (where each seed has others, those of the first)"


def remarks(found: Findings) -> list[str]:
    """Return what a reader should know beside the sentence: data left out, undecided rivals, the centralised bound."""
    return _left_out(found) + doubts(found)


def doubts(found: Findings) -> list[str]:
    """Return the undecided rivals, the centralised bound, and what membership inference found."""
    if not found.ranks or found.single:
        return _signals(found)
    gaps = found.gaps[found.whole]
    open_ones = [g.second for g in gaps if g.verdict == "undecided" and not found.is_centralised(g.second)]
    told = [f"Not decided: {found.best} against {', '.join(open_ones)}."] if open_ones else []
    for row in found.ranks[found.whole]:
        if found.is_centralised(row.method) and row.method != found.best:
            reached = f"{value(row.value.value)} ({bounds(row.value)})"
            told.append(f"With all data in one place, {row.method} reaches {reached}.")
    return [*told, *_signals(found)]


def _signals(found: Findings) -> list[str]:
    """Return what membership inference found in each data set without generated examples, the first such method's."""
    lines: dict[str, str] = {}
    for data, method, runs in found.study.kinds():
        for line in () if any(map(stage_of_content, runs.values())) else signal_lines(runs):
            lines.setdefault(data, f"{data}, {method}: {line}.")
    return [*lines.values()]


def _left_out(found: Findings) -> list[str]:
    """Return the share of each data set's training examples that was cut or dropped; a warning where it is large."""
    first = {data: one for (data, _, _), one in reversed(list(found.study.cells.items()))}
    cards = {data: one.card["encoded"] for data, one in first.items() if one.card.get("encoded")}
    told = [f"{data}: {remark}." for data, one in first.items() for remark in one.card.get("remarks", ())]
    if len(cards) > 1 and not any(any(lost_shares(encoded).values()) for encoded in cards.values()):
        return [f"Of the training examples of {len(cards)} data sets none was cut, dropped or blank.", *told]
    lines = told
    for data, encoded in cards.items():
        line, warns = cut_and_dropped(encoded)
        lines.append(f"{'Warning: ' * warns}{data}: {line}.")
    return lines


def facts(found: Findings) -> list[tuple[str, str]]:
    """Return the few numbers at the head of the page."""
    cells = list(found.study.cells.values())
    told: list[tuple[str, str]] = []
    if found.ranks:
        told.append((f"{score_name(found.score(found.whole))}, {found.best}", value(found.lead.value.value)))
    own = [row for rows in found.fairness.values() for row in rows if row.method == found.best]
    if len(own) == 1:
        n = max(map(len, own[0].clients.values()))
        told.append((f"worst tenth of its {n} clients", value(own[0].measures["worst_decile"].value)))
    spent = [largest_epsilon(one.privacy) for one in cells if one.privacy]
    return [
        *told,
        ("finished runs", f"{len(cells)} of {len(cells) + len(found.study.missing)}"),
        ("sent by clients", size(sum(one.cost["upload_bytes"] for one in cells))),
        *([("largest epsilon", value(max(spent)))] if spent else []),
        ("wall time, all runs", duration(sum(one.cost["wall_s"] for one in cells))),
    ]
