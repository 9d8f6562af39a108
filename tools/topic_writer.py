"""Instructions by topic for the text miniature of FedGC, and a look at what a writer of them has written.

    python tools/topic_writer.py --out runs/fedgc/text/data [--seeds 7 8 9] [--private 15] [--public 20]
    python tools/topic_writer.py --out runs/fedgc/text/data --judge FOLDER

A topic is one of eight verbs of the danger world, an instruction a request about a safe object, its response the verb's
tool, which the embedded model does not know. Clients, the public and the test have objects of their own, the test a
wording of its own. Written are `clients_SEED.jsonl` (so many records of each topic, all clients' together; a partition
deals them), `public.jsonl`, `questions.jsonl`, and `writer.jsonl`: the public records as what a writer is asked and
answers.

Judged is what the preparation `generated` got anywhere below FOLDER: the shares of all answers that have the form of an
instruction with its response, are about the topic that was asked for, and are answered rightly besides; of those of the
form how many differ, and how many are public, private or test instructions word for word.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedloom.base import rng
from fedloom.contracts.examples import Chat
from fedloom.synthesis.prompting import parsed
from fedloom.world import DangerWorld

Row = Mapping[str, str]

ASKED = "write an instruction about {topic}."
"""What a writer is asked; the embedded model has read lower case alone."""
_WORLD = DangerWorld()
_TOPICS = tuple(dict.fromkeys(one.tags["verb"] for one in _WORLD.defence_pairs()[1]))[:8]
_OBJECTS = 3  # of each topic's questions every third of the test's twelve objects, in turn


def written(seeds: Iterable[int], *, private: int, public: int) -> dict[str, list[Row]]:
    """Return the records of each file."""
    clients = {f"clients_{seed}": _requests("clients", private, seed) for seed in seeds}
    known = _requests("defence", public, 0)
    return {**clients, "public": known, "writer": [_asked(row) for row in known], "questions": _questions()}


def _requests(part: str, count: int, seed: int) -> list[Row]:
    random = rng.python_random("topics", part, seed)
    things = _WORLD.of("clients" if part == "clients" else "defence", danger=False)
    return [
        _row(one, topic)
        for topic in _TOPICS
        for one in _WORLD.requests(things, count, manner="terse", random=random, verbs=(topic,))
    ]


def _questions() -> list[Row]:
    """Return questions in the test's wording: each of the test's is asked of a topic, with the answer of that topic."""
    answers = {row["topic"]: row["output"] for row in _requests("defence", 1, 0)}
    (wording,) = {_worded(one) for one in _WORLD.test("evaluation", danger=False)}
    things = _WORLD.of("evaluation", danger=False)
    return [
        {"instruction": wording.format(topic, thing.name), "output": answers[topic], "topic": topic}
        for at, topic in enumerate(_TOPICS)
        for thing in things[at % _OBJECTS :: _OBJECTS]
    ]


def _worded(one: Chat) -> str:
    return one.prompt[-1].text.replace(f" {one.tags['verb']} a {one.tags['object']}", " {} a {}")


def _row(one: Chat, topic: str) -> Row:
    return {"instruction": one.prompt[-1].text, "output": one.reference, "topic": topic}


def _asked(row: Row) -> Row:
    answer = f"{row['instruction']}\nResponse: {row['output']}"
    return {"instruction": ASKED.format(topic=row["topic"]), "output": answer, "topic": row["topic"]}


def judged(answers: Sequence[tuple[str, str]], files: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Return shares by what they are of: of all answers, each with its prompt, or of those that have the form."""
    topics = {ASKED.format(topic=row["topic"]): row["topic"] for row in files["public"]}
    right = {row["topic"]: row["output"] for row in files["public"]}
    pairs = [(topics[prompt], pair) for prompt, text in answers if (pair := parsed(text))]
    about = [(topic, pair) for topic, pair in pairs if f" {topic} " in pair[0]]
    texts = [pair[0] for _, pair in pairs]
    kinds = {"public": "public", "private": "clients_", "test": "questions"}
    known = {
        kind: {row["instruction"] for name, rows in files.items() if name.startswith(begin) for row in rows}
        for kind, begin in kinds.items()
    }
    return {
        "of the form": len(pairs) / len(answers),
        "of the topic": len(about) / len(answers),
        "rightly answered": sum(pair[1] == right[topic] for topic, pair in about) / len(answers),
        "different": len(set(texts)) / max(1, len(texts)),
        **{kind: sum(text in those for text in texts) / max(1, len(texts)) for kind, those in known.items()},
    }


def _read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or print what is judged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--private", type=int, default=15)
    parser.add_argument("--public", type=int, default=20)
    parser.add_argument("--judge", type=Path)
    given = parser.parse_args(arguments)
    if given.judge:
        found = sorted(given.judge.glob("**/prepared/*_generated/*/answers.jsonl"))
        answers = [(row["prompt"][-1][1], row["text"]) for file in found for row in _read(file)]
        if not answers:
            raise SystemExit(f"{given.judge}: holds no answers of a preparation 'generated'.")
        shares = judged(answers, {file.stem: _read(file) for file in given.out.glob("*.jsonl")})
        sys.stdout.write(f"{len(answers)} answers: {', '.join(f'{what} {x:.3f}' for what, x in shares.items())}\n")
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in written(given.seeds, private=given.private, public=given.public).items():
        (given.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
