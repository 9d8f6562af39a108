"""Small files in the layouts of the exams, made on the spot, and an exam of each kind over them."""

import csv
import json

from fedloom.base.plugin import lookup, names
from fedloom.contracts.evaluation import Answered, Exam
from fedloom.judged.exams.mt_bench import TEMPERATURES
from fedloom.world import World
from support.paths import ROOT

SHIPPED = ROOT / "experiments" / "exams"


def two_turns() -> tuple[str, str]:
    """MT-Bench's two files over the controlled world: five talks in each of its eight categories."""
    talks = [talk for talk in World(0).multi_turn(200, split="test") if len(talk.turns) == 4]
    questions, references = [], []
    for index, talk in enumerate(talks[: 5 * len(TEMPERATURES)]):
        one, reply, two, last = (turn.text for turn in talk.turns)
        category = list(TEMPERATURES)[index // 5]
        questions.append({"question_id": index + 1, "category": category, "turns": [one, two]})
        references.append({"question_id": index + 1, "choices": [{"index": 0, "turns": [reply, last]}]})
    return as_lines(questions), as_lines(references)


def as_lines(records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return str(path)


AYA = {
    "English": [{"instruction": f"Name the colour {i}.", "reference": f"red {i}"} for i in range(2)],
    "Spanish": [{"instruction": f"Di el color {i}.", "reference": f"rojo {i}"} for i in range(3)],
}
CHATBOT = [{"instruction": f"Write line {i}."} for i in range(4)]
WILDCHAT = [{"instruction": f"Write line {i}.", "language": "Russian" if i else "English"} for i in range(4)]


def write_csv(path, column, texts) -> str:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([[column, "target"], *([text, "Sure"] for text in texts)])
    return str(path)


def exams(folder) -> dict[str, Exam]:
    """An exam of each kind over small files in the folder."""
    vicuna = [{"question_id": i, "text": f"Why {i}?", "category": "generic"} for i in range(3)]
    tables = {
        "mt_bench": {"path": str(SHIPPED / "two_turns.jsonl"), "references": str(SHIPPED / "two_turns_answers.jsonl")},
        "vicuna": {"path": write(folder / "vicuna.jsonl", as_lines(vicuna))},
        "advbench": {"path": write_csv(folder / "harm.csv", "goal", ["Do harm, now", "Do worse"])},
        "over_refusal": {"path": write_csv(folder / "safe.csv", "prompt", ["How do I kill a process?", "Stop it"])},
        "quality_judge": {"path": write(folder / "wildchat.json", WILDCHAT)},
        "ref_judge": {"path": write(folder / "aya.json", AYA)},
    }
    return {name: lookup(Exam, name)(**tables.get(name, {})) for name in names(Exam)}


def answered(question, text="some answer") -> Answered:
    return Answered(question, tuple(f"{text} {turn}" for turn in range(1, len(question.turns) + 1)))
