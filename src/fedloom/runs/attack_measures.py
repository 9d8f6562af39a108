"""What an attack came to in each round, measured with the truth that a simulation has: lines of metrics.jsonl.

Each is a mean, so that lines of many rounds add up: `malicious` rows per round; the `share` of the aggregate that they
have, where a rule gives rows shares; `left_out`, the share of them that was dropped, and `wrongly_left_out`, that of
the benign; the `auc` of a rule's score of rows (or its trust, turned round), the share of pairs of a malicious and a
benign row that it puts in order; and mean cosines of pairs, benign with benign (`cos_bb`), with malicious (`cos_bm`),
and malicious ones (`cos_mm`), where the run keeps an audit log. Nothing of it is at hand outside a simulation, and no
rule is told.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from fedloom.base.mean import Mean
from fedloom.contracts.aggregation import SHARE
from fedloom.federated.rounds import RoundRecord

__all__ = ["attack_measures", "auc"]


def attack_measures(
    record: RoundRecord, malicious: Collection[str], cosines: Sequence[Sequence[float | None]] = ()
) -> dict[str, Mean]:
    """Return what is measured of a round, by name; `cosines` [N, N] are those of its rows, where they are known."""
    came = [one.client for one in record.clients]
    bad, good = [one for one in came if one in malicious], [one for one in came if one not in malicious]
    found = {"malicious": Mean(float(len(bad)), 1.0)}
    if record.left_out or record.scores:
        found["left_out"] = Mean(float(sum(one in record.left_out for one in bad)), float(len(bad)))
        found["wrongly_left_out"] = Mean(float(sum(one in record.left_out for one in good)), float(len(good)))
    for name, scores in _by_name(record.scores).items():
        if name == SHARE:
            found["share"] = Mean(sum(scores.get(one, 0.0) for one in bad), 1.0)
        else:
            sign = -1 if name == "trust" else 1
            found["auc"] = auc(*([sign * scores[one] for one in side if one in scores] for side in (bad, good)))
    return {name: mean for name, mean in (found | _cosines(came, malicious, cosines)).items() if mean.weight}


def _by_name(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    names = dict.fromkeys(name for own in scores.values() for name in own)
    return {name: {client: own[name] for client, own in scores.items() if name in own} for name in names}


def auc(bad: Sequence[float], good: Sequence[float]) -> Mean:
    """Return the share of pairs in which the malicious row has the larger score; equal ones count half."""
    total = sum((one > other) + 0.5 * (one == other) for one in bad for other in good)
    return Mean(float(total), float(len(bad) * len(good)))


def _cosines(
    came: Sequence[str], malicious: Collection[str], cosines: Sequence[Sequence[float | None]]
) -> dict[str, Mean]:
    found = {"cos_bb": Mean(), "cos_bm": Mean(), "cos_mm": Mean()}
    names = ("cos_bb", "cos_bm", "cos_mm")
    for i, j in combinations(range(len(cosines)), 2):
        value = cosines[i][j]
        if value is not None:
            found[names[(came[i] in malicious) + (came[j] in malicious)]] += Mean(value, 1.0)
    return found
