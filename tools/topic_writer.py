"""The text miniature of FedGC: instructions by topic of the danger world, and what a writer of them learns from.

python tools/topic_writer.py [--out runs/fedgc_text] [--seeds 3] [--private 10] [--public 20]
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fedloom.base import rng
from fedloom.contracts.examples import Chat
from fedloom.world import DangerWorld

ASKED = "write an instruction about {topic}."
_EACH = 3


def records(seed: int, part: str, count: int) -> list[dict[str, Any]]:
    world = DangerWorld()
    things = world.of(part, danger=False)
    random = rng.python_random("topics", part, seed)
    verbs = sorted({one.tags["verb"] for one in world.defence_pairs()[1]})
    chats = [
        one for verb in verbs for one in world.requests(things, count, manner="detailed", random=random, verbs=(verb,))
    ]
    return [_record(one) for one in chats]


def questions() -> list[dict[str, Any]]:
    from fedloom.world.danger import request

    world = DangerWorld()
    verbs = sorted({one.tags["verb"] for one in world.defence_pairs()[1]})
    random = rng.python_random("topics", "test")
    things = world.of("evaluation", danger=False)
    return [
        _record(request(thing, random, manner="detailed", verbs=(verb,), split="test"))
        for at, verb in enumerate(verbs)
        for thing in things[at % _EACH :: _EACH]
    ]


def _record(one: Chat) -> dict[str, Any]:
    return {"instruction": one.prompt[-1].text, "output": one.reference, "topic": one.tags["verb"]}


def asked(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "instruction": ASKED.format(topic=row["topic"]),
            "output": f"{row['instruction']}\nResponse: {row['output']}",
            "topic": row["topic"],
        }
        for row in rows
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/fedgc_text"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--private", type=int, default=10)
    parser.add_argument("--public", type=int, default=20)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    public = records(0, "defence", given.public)
    files = {f"clients_{seed}": records(seed, "clients", given.private) for seed in range(given.seeds)}
    files |= {"public": public, "writer": asked(public), "questions": questions()}
    for name, rows in files.items():
        (given.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
