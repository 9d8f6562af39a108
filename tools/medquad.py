"""Real documents with known pairs: answers of MedQuAD as the notes of its seven sources.

    python tools/medquad.py ../shared/data/medicine-medquad/medquad-dev.jsonl --out runs/medquad [--documents 20] \
        [--textbook GHR,NIDDK]

Writes pool.jsonl (rows of diseases that no document and no question is about), documents.jsonl (the first three
sentences of answers, owned by their sources), gold.jsonl (the questions that these answers were written to, with the
first two sentences) and questions.jsonl (held-out ones, of other diseases again). Diseases are dealt by seed. Sources
of the textbook own nothing and ask nothing: their pairs, of the documents' diseases, are textbook.jsonl. Sources copy
one another: rows of the pool that are like a question are left out.

    python tools/medquad.py FILE --out runs/medquad_test --test 10

writes train.jsonl and test.jsonl alone, in the file's own columns: so many questions of each source, about diseases of
its own, and all rows of other diseases that are near none of these with its answer; and exam.jsonl, the same questions
with their references for a judge.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from fedloom.base import rng
from fedloom.base.files import write_atomic
from fedloom.data.records import read_records
from fedloom.synthesis.pool import NEAR
from fedloom.synthesis.vectors import tfidf_cosines

Row = Mapping[str, str]


def sentences(text: str, count: int) -> str:
    """Return the first sentences of a text on one line."""
    return " ".join(re.split(r"(?<=[.!?])\s+", " ".join(text.split()))[:count])


def dealt(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Return rows by part, no disease in two of them: a fifth of the diseases for the pool, one for questions."""
    diseases = sorted({row["focus"].casefold() for row in rows})
    order = rng.numpy_random(seed, "medquad", "diseases").permutation(len(diseases))
    fifth = len(diseases) // 5
    part_of = {
        diseases[at]: "pool" if place < fifth else "questions" if place < 2 * fifth else "documents"
        for place, at in enumerate(order)
    }
    parts: dict[str, list[Row]] = {"pool": [], "questions": [], "documents": []}
    shuffled = rng.numpy_random(seed, "medquad", "rows").permutation(len(rows))
    for at in shuffled:
        parts[part_of[rows[at]["focus"].casefold()]].append(rows[at])
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the four files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=20, help="of each source")
    parser.add_argument("--pool", type=int, default=60)
    parser.add_argument("--questions", type=int, default=70)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--textbook", default="", help="sources that no client owns, with commas between them")
    parser.add_argument(
        "--test", type=int, default=0, help="write train.jsonl and test.jsonl: questions of each source"
    )
    given = parser.parse_args(arguments)
    if given.test:
        return _written(given.out, tested(_rows(given.file), given.test, given.seed))
    public = set(filter(None, given.textbook.split(",")))
    parts = dealt(_rows(given.file), given.seed)
    unknown = sorted(public - {row["source"] for row in parts["documents"]})
    if unknown:
        parser.error(f"--textbook: no source {', '.join(unknown)}")
    textbook = [row for row in parts["documents"] if row["source"] in public]
    parts = {name: [row for row in rows if row["source"] not in public] for name, rows in parts.items()}
    owned: list[Row] = []
    for source in sorted({row["source"] for row in parts["documents"]}):
        owned += [row for row in parts["documents"] if row["source"] == source][: given.documents]
    pool = [
        {
            "id": f"m{at}",
            "domain": row["qtype"],
            "document": sentences(row["answer"], 3),
            "instruction": row["question"],
            "response": sentences(row["answer"], 2),
        }
        for at, row in enumerate(parts["pool"][: given.pool])
    ]
    files = {
        "pool": pool,
        "documents": [{"text": sentences(row["answer"], 3), "client": row["source"]} for row in owned],
        "gold": [_pair(row) for row in owned],
        "questions": [_pair(row) for row in parts["questions"][: given.questions]],
    } | ({"textbook": [_pair(row) for row in textbook]} if public else {})
    files["pool"] = _unlike(_unlike(pool, files["questions"]), files["questions"], documents=True)
    return _written(given.out, files)


def tested(rows: Sequence[Row], count: int, seed: int) -> dict[str, list[Row]]:
    """Return rows to train on and to ask about: of each source so many, of diseases of its own, drawn by the seed.

    The first row of a disease is asked about, its other rows are left out, and so is every row like one that is asked.
    """
    owners: dict[str, set[str]] = {}
    for row in rows:
        owners.setdefault(row["focus"].casefold(), set()).add(row["source"])
    asked: dict[str, list[Row]] = {}
    diseases: set[str] = set()
    for at in rng.numpy_random(seed, "medquad", "test").permutation(len(rows)):
        row = rows[at]
        disease, mine = row["focus"].casefold(), asked.setdefault(row["source"], [])
        if len(mine) < count and len(owners[disease]) == 1 and disease not in diseases:
            diseases.add(disease)
            mine.append(row)
    in_turn = [row for turn in zip_longest(*(asked[source] for source in sorted(asked))) for row in turn if row]
    others = [row for row in rows if row["focus"].casefold() not in diseases]
    asked_texts, texts = ([f"{row['question']}\n{row['answer']}" for row in part] for part in (in_turn, others))
    nearest = tfidf_cosines(asked_texts, texts).max(0, initial=0.0)
    train = [row for row, cosine in zip(others, nearest, strict=True) if cosine <= NEAR]
    exam = [{"instruction": row["question"], "reference": row["answer"], "category": row["source"]} for row in in_turn]
    return {"train": train, "test": in_turn, "exam": exam}


def _rows(file: Path) -> list[Row]:
    return [dict(record.values) for record in read_records(file)]


def _written(out: Path, files: Mapping[str, Sequence[Row]]) -> int:
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        write_atomic(out / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    sys.stdout.write(", ".join(f"{name} {len(rows)}" for name, rows in files.items()) + f", in {out}\n")
    return 0


def _unlike(pool: Sequence[Row], questions: Sequence[Row], *, documents: bool = False) -> list[Row]:
    """Return the pool rows whose pair, with or without its document, is near no question."""
    before = [f"{row['document']}\n" if documents else "" for row in pool]
    pairs = [f"{head}{row['instruction']}\n{row['response']}" for head, row in zip(before, pool, strict=True)]
    asked = [f"{row['instruction']}\n{row['output']}" for row in questions]
    nearest = tfidf_cosines(asked, pairs).max(axis=0) if pool and questions else []
    return [row for row, cosine in zip(pool, nearest, strict=True) if cosine <= NEAR]


def _pair(row: Row) -> dict[str, str]:
    return {"instruction": row["question"], "output": sentences(row["answer"], 2), "client": row["source"]}


if __name__ == "__main__":
    sys.exit(main())
