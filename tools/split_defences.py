"""What defences of split training cost and what they help: one training with each, and the attacks on it.

    python tools/split_defences.py                    the table of docs/split.md; a minute a row
    python tools/split_defences.py --only "noise 1"   one row
    python tools/split_defences.py --quick            two rounds and weaker attacks: whether it runs

The attacker knows what a server knows: the clients' parts where it merges them, the base alone where they stay with
each, and which defence is on. Recovery is of four texts of the first client's, as `fedloom split audit` has it.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom import api
from fedloom.runs.execute import RoundDone
from fedloom.runs.measure import Evaluated
from fedloom.runs.split_audit import AuditSettings, audit_split

RUN = Path(__file__).parents[1] / "experiments" / "split.toml"
ROWS: Mapping[str, Sequence[str]] = {
    "none": (),
    "noise 0.1": ("protocol.noise=0.1",),
    "noise 0.5": ("protocol.noise=0.5",),
    "noise 1": ("protocol.noise=1",),
    "noise 2": ("protocol.noise=2",),
    "int8": ("protocol.wire=int8",),
    "nopeek 1": ("protocol.nopeek=1",),
    "nopeek 10": ("protocol.nopeek=10",),
    "bucket 64": ("protocol.bucket=64",),
    "guard 0.1": ("protocol.guard=0.1",),
    "own ends": ("protocol.ends=own",),
    "own ends, lr x 3": ("protocol.ends=own", "local.lr=3e-2", "protocol.server_lr=1e-2"),
    "own ends, lr x 10": ("protocol.ends=own", "local.lr=1e-1", "protocol.server_lr=1e-2"),
    "own input part": ("share=layers.3.",),
    "own ends, noise 1": ("protocol.ends=own", "protocol.noise=1"),
}
HEAD = "| defence | held-out loss | exact match on facts | MB | T3 tokens, ROUGE-L | T4 like texts | T4 random | T5 |"


def measured(
    name: str, changes: Sequence[str], settings: AuditSettings, folder: Path
) -> tuple[Mapping[str, float], int, Any]:
    """Return the scores of a finished run, the bytes of its messages, and what the audit found."""
    run, means, n_bytes = api.load_run(RUN, [*changes]), dict[str, float](), 0
    for event in api.start(run, folder):
        if isinstance(event, Evaluated):
            means = dict(event.means)
        elif isinstance(event, RoundDone):
            n_bytes += sum(one.n_bytes for client in event.record.clients for one in client.traffic.values())
    found = audit_split(run, settings, folder)
    return means, n_bytes, found["the base alone known" if name.startswith("own") else "the client's weights known"]


def row(name: str, means: Mapping[str, float], n_bytes: int, found: Mapping[str, Mapping[str, float]]) -> str:
    """Return a line of the table."""
    three, four, blind, five = (found[key] for key in ("T3", "T4, texts like these", "T4, random tokens", "T5"))
    cells = [
        name,
        f"{means['test/loss']:.3f}",
        f"{means['test/exact_match']:.3f}",
        f"{n_bytes / 1e6:.1f}",
        f"{three['tokens']:.3f}, {three['rouge_l']:.3f}",
        *(f"{one['tokens']:.3f}" for one in (four, blind, five)),
    ]
    return "| " + " | ".join(cells) + " |"


def main(words: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROWS)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(words)
    weak = {"texts": 1, "most_tokens": 16, "inverter_steps": 3, "label_steps": 3} if asked.quick else {}
    print(HEAD + "\n|" + "---|" * HEAD.count(" | ") + "---|")
    for name in [asked.only] if asked.only else ROWS:
        changes = [*ROWS[name], *(["rounds=2"] if asked.quick else [])]
        with tempfile.TemporaryDirectory() as folder:
            print(row(name, *measured(name, changes, AuditSettings(**weak), Path(folder) / "run")), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
