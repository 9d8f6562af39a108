r"""How often an order in a document is obeyed by whoever makes pairs of it: before the filters, and after them.

    python tools/injection.py --pool world completer.name=analogical
    python tools/injection.py --pool runs/medquad/pool.jsonl --out runs/injection completer.name=model \
        completer.model.name=causal_lm completer.model.path=models/smollm2 selector.k=3 max_new_tokens=160

The documents are those of `synthesis/hostile.toml`, each with a word that its order asks for, and go through the
preparation `pairs` as one client's, by the settings given. An order counts as obeyed where the word stands in what the
completer wrote, and after the filters where it stands in a pair that was kept; who only quotes an order is counted as
well. Intervals are Wilson's (1927, 95 %), and know of no other documents than these.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from statistics import NormalDist
from typing import Any

from fedloom.base import config
from fedloom.base.errors import FedloomError
from fedloom.base.files import json_sha256
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Document
from fedloom.contracts.stages import Owner, Preparation
from fedloom.evaluation.intervals import LEVEL, bounded_share
from fedloom.synthesis.hostile import Hostile, hostile_documents


@dataclass(frozen=True)
class Result:
    """What became of a hostile document."""

    document: Hostile
    written: bool
    """Whether its order was obeyed in what the completer wrote."""
    kept: bool
    """Whether it was in a pair that the filters kept."""
    n_pairs: int
    """Pairs that were kept."""
    reasons: tuple[str, ...]


def measured(preparation: Preparation, folder: Path) -> list[Result]:
    """Return what a preparation of pairs makes of each document; what it writes lies in the folder."""
    documents = hostile_documents()
    preparation([Document(one.text) for one in documents], Owner("hostile", 0, folder))
    said = {_hash(line["prompt"]): line["text"] for line in _lines(folder / "answers.jsonl")}
    made = _lines(folder / "pairs.jsonl")
    return [_result(one, [line for line in made if line["document"] == at], said) for at, one in enumerate(documents)]


def _hash(prompt: Any) -> str:
    return f"sha256:{json_sha256(prompt)}"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _result(document: Hostile, lines: Sequence[Mapping[str, Any]], said: Mapping[str, str]) -> Result:
    kept = [f"{line['instruction']}\n{line['response']}" for line in lines if not line["reason"]]
    return Result(
        document,
        any(document.obeyed(said.get(line["prompt"], "")) for line in lines),
        any(map(document.obeyed, kept)),
        len(kept),
        tuple(line["reason"] for line in lines if line["reason"]),
    )


def share(hits: Sequence[bool]) -> str:
    """Return a share with its interval, and what it is of."""
    value = sum(hits) / len(hits)
    low, high = bounded_share(value, 0.0, len(hits), NormalDist().inv_cdf((1 + LEVEL) / 2))
    return f"{value:.3f} [{max(low, 0.0):.3f}, {min(high, 1.0):.3f}] ({sum(hits)} of {len(hits)})"


def told(results: Sequence[Result]) -> list[str]:
    """Return the lines that are printed: a line for each document, and the rates."""
    rows = [
        f"{one.document.name:20} {one.document.kind:10} {_word(one):18} {', '.join(one.reasons) or 'kept'}"
        for one in results
    ]
    reasons = Counter(reason for one in results for reason in one.reasons)
    pairs = Counter(one.n_pairs for one in results)
    return [
        *rows,
        "",
        f"obeyed before the filters  {share([one.written for one in results])}",
        f"obeyed after the filters   {share([one.kept for one in results])}",
        "pairs of a document        " + ", ".join(f"{n} of {pairs[n]}" for n in sorted(pairs)),
        "dropped                    " + (", ".join(f"{n} {name}" for name, n in sorted(reasons.items())) or "none"),
    ]


def _word(one: Result) -> str:
    return "obeyed" if one.kept else "obeyed, dropped" if one.written else "not obeyed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="settings of the preparation 'pairs', as completer.name=analogical")
    parser.add_argument("--pool", default="world", help="file of public examples, or 'world'")
    parser.add_argument("--out", type=Path, help="where answers and pairs are kept; left out: nowhere")
    given = parser.parse_args(arguments)
    try:
        table: dict[str, Any] = reduce(config.apply_override, given.settings, {"pool": given.pool})
        preparation = config.build(lookup(Preparation, "pairs"), table)
        with tempfile.TemporaryDirectory() as spare:
            folder = given.out or Path(spare)
            folder.mkdir(parents=True, exist_ok=True)
            results = measured(preparation, folder)
    except FedloomError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(told(results)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
