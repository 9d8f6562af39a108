"""What retrieval is worth for pairs made of documents: yield and precision by selector, without a model.

    python tools/u2s.py [--seeds 10] [--noise 0.0] [--documents 60]

The generator is `analogical`, which knows nothing but the example it is shown; documents are those of
`fedloom.world.notes`, whose true pairs are known. Yield is the share of documents with a pair that passes the filter
`form`; precision the share of those pairs that are the true one. `worst` takes the least similar row, `shuffled`
retrieves by documents dealt to other rows, both as controls. Intervals are Student's over seeds, of paired differences.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.stats import t

from fedloom.base import rng
from fedloom.base.files import json_sha256
from fedloom.base.plugin import lookup
from fedloom.completers.analogical import analogous
from fedloom.contracts.synthesis import Around, Candidate, Filter, PoolRow, Selection, Selector, Similarities, Where
from fedloom.synthesis.vectors import similarities
from fedloom.world.notes import notes

Choose = Callable[[Similarities, Where], Sequence[Selection]]

CLAIMS = (("per_datum", "client_shortlist", 0.30), ("client_shortlist", "random", 0.15))
"""Of two selectors, by how much the first one's precision lies above the other's at least."""


@dataclass(frozen=True)
class Result:
    """What a selector's examples gave."""

    share: float
    precision: float


def selectors() -> dict[str, Choose]:
    """Return the ways of choosing one example."""
    shipped = ("per_datum", "mmr", "client_shortlist", "client_mean", "fixed", "random")
    return {"worst": _worst, **{name: lookup(Selector, name)() for name in shipped}}


def _worst(near: Similarities, _: Where) -> list[Selection]:
    return [Selection((int(row),)) for row in near.to_pool_NM.argmin(axis=1)]


def measured(seed: int, *, noise: float, documents: int) -> dict[str, Result]:
    """Return what each way gives over the documents of all clients of one world."""
    world = notes(seed, documents=documents, noise=noise)
    pool = world.pool
    keys = [row.document for row in pool]
    dealt = [keys[at] for at in rng.numpy_random(seed, "shuffled keys").permutation(len(keys))]
    found: dict[str, list[tuple[PoolRow, tuple[str, str] | None]]] = {}
    for client, owned in world.clients.items():
        texts = [one.document for one in owned]
        where = Where(seed, client, tuple(map(json_sha256, texts)))
        near, shuffled = similarities(texts, keys), similarities(texts, dealt)
        ways: Mapping[str, tuple[Choose, Similarities]] = {name: (way, near) for name, way in selectors().items()}
        for name, (way, seen) in chain(ways.items(), [("shuffled", (lookup(Selector, "per_datum")(), shuffled))]):
            rows = [pool[selection.rows[-1]] for selection in way(seen, where)]
            made = [_made(row, one) for row, one in zip(rows, owned, strict=True)]
            found.setdefault(name, []).extend(zip(owned, made, strict=True))
    return {name: _result(pairs) for name, pairs in found.items()}


def _made(row: PoolRow, one: PoolRow) -> tuple[str, str] | None:
    pair = analogous(row.document, row.instruction, row.response, one.document)
    if pair is None:
        return None
    candidate = Candidate(id="", document=one.document, instruction=pair[0], response=pair[1], examples=(row,))
    (verdict,) = lookup(Filter, "form")()([candidate], Around())
    return None if verdict.reason else pair


def _result(pairs: Sequence[tuple[PoolRow, tuple[str, str] | None]]) -> Result:
    kept = [(one, pair) for one, pair in pairs if pair is not None]
    right = sum((one.instruction, one.response) == pair for one, pair in kept)
    return Result(len(kept) / len(pairs), right / len(kept) if kept else 0.0)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % interval of values that seeds gave."""
    mean, spread = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    reach = float(t.ppf(0.975, len(values) - 1)) * spread
    return mean, mean - reach, mean + reach


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the claims; return 1 if one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--documents", type=int, default=60)
    given = parser.parse_args(arguments)
    results = [measured(seed, noise=given.noise, documents=given.documents) for seed in range(given.seeds)]
    lines = [f"{'selector (k = 1)':18} yield                precision"]
    for name in results[0]:
        parts = [interval([getattr(one[name], what) for one in results]) for what in ("share", "precision")]
        lines.append(f"{name:18} " + "  ".join(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in parts))
    held, told = _claims(results, noisy=given.noise > 0)
    sys.stdout.write("\n".join([*lines, "", *told]) + "\n")
    return 0 if held else 1


def _claims(results: Sequence[Mapping[str, Result]], *, noisy: bool) -> tuple[bool, list[str]]:
    found: list[tuple[bool, str]] = []
    for better, other, least in CLAIMS:
        mean, low, high = interval([one[better].precision - one[other].precision for one in results])
        bound = 0.0 if noisy else least
        found.append(
            (low > bound, f"precision, {better} - {other}: {mean:+.3f} [{low:+.3f}, {high:+.3f}], above {bound}")
        )
    if not noisy:
        means = {
            name: np.mean([(one[name].share, one[name].precision) for one in results], axis=0) for name in results[0]
        }
        found += [
            (bool(means["per_datum"].min() >= 0.9), "yield and precision of per_datum at least 0.90"),
            (bool(means["worst"][1] <= 0.05), "precision of worst at most 0.05"),
            (bool(means["shuffled"][1] < 0.35), "precision with shuffled keys below 0.35"),
        ]
    return all(ok for ok, _ in found), [f"{'holds' if ok else 'FAILS'}: {text}" for ok, text in found]


if __name__ == "__main__":
    sys.exit(main())
