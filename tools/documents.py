"""Real documents with known pairs beside MedQuAD's: solutions of sums, and passages of plays.

    python tools/documents.py gsm8k ../shared/data/math-gsm8k/train.jsonl --out runs/gsm8k [--documents 40] [--seed 0]
    python tools/documents.py plays ../shared/data/plays-shakespeare/tinyshakespeare.txt --out runs/plays

Writes pool.jsonl (rows that no document and no question is made of), documents.jsonl, gold.jsonl (the pair of each
document) and questions.jsonl (others again). A sum's document is its question with the worked solution, its pair the
question with the result. A passage is five speeches in a row, its pair asks who says one line of it. Owners are dealt
in turn.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from fedloom.base import rng
from fedloom.base.files import write_atomic
from fedloom.data.records import read_records

Triple = tuple[str, str, str]
"""Document, instruction, response."""

_SPEECHES = 5


def sums(path: Path) -> list[Triple]:
    """Return a document and its pair for each sum."""
    found: list[Triple] = []
    for record in read_records(path):
        question = str(record.values["question"]).strip()
        worked, _, result = str(record.values["answer"]).partition("####")
        solution = " ".join(re.sub(r"<<.*?>>", "", worked).split())
        found.append((f"{question} {solution}", question, result.strip()))
    return found


def passages(path: Path) -> list[Triple]:
    """Return a document and its pair for each passage with a line of four words or more, other than its first."""
    speeches = [part.partition(":\n") for part in path.read_text(encoding="utf-8").strip().split("\n\n")]
    whole = [(who.strip(), " ".join(said.split())) for who, colon, said in speeches if colon and said.strip()]
    found: list[Triple] = []
    for at in range(0, len(whole) - _SPEECHES, _SPEECHES):
        part = whole[at : at + _SPEECHES]
        asked = next(((who, said) for who, said in part[1:] if 4 <= len(said.split()) <= 30), None)
        if asked:
            text = " ".join(f"{who}: {said}" for who, said in part)
            found.append((text, f'Who says "{asked[1]}"?', asked[0]))
    return found


KINDS = {"gsm8k": sums, "plays": passages}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the four files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--owners", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    triples = list(dict.fromkeys(KINDS[given.kind](given.file)))
    order = rng.numpy_random(given.seed, "documents", given.kind).permutation(len(triples)).tolist()
    sizes = (given.pool, given.documents, given.questions)
    if sum(sizes) > len(triples):
        parser.error(f"{given.file} gives {len(triples)} documents, {sum(sizes)} are asked for")
    starts = (0, sizes[0], sizes[0] + sizes[1])
    pool, owned, held = (
        [triples[at] for at in order[start : start + n]] for start, n in zip(starts, sizes, strict=True)
    )
    owners = [f"owner{at % given.owners}" for at in range(max(sizes))]
    files = {
        "pool": [
            {"id": f"p{at}", "document": document, "instruction": instruction, "response": response}
            for at, (document, instruction, response) in enumerate(pool)
        ],
        "documents": [{"text": one[0], "client": owner} for one, owner in zip(owned, owners, strict=False)],
        "gold": [_pair(one, owner) for one, owner in zip(owned, owners, strict=False)],
        "questions": [_pair(one, owner) for one, owner in zip(held, owners, strict=False)],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        write_atomic(given.out / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    sys.stdout.write(", ".join(f"{name} {len(rows)}" for name, rows in files.items()) + f", in {given.out}\n")
    return 0


def _pair(one: Triple, owner: str) -> dict[str, str]:
    return {"instruction": one[1], "output": one[2], "client": owner}


if __name__ == "__main__":
    sys.exit(main())
