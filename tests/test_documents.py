"""tools/documents.py: sums and passages become documents whose pairs are known, in parts that share none."""

import json

import pytest

from support.tools import tool

PLAY = "\n\n".join(
    f"{who}:\nThis is the line number {at}\nof {who} today." for at, who in enumerate(["Ana", "Ben", "Cleo"] * 100)
)


@pytest.fixture
def sources(tmp_path):
    """A file of each kind."""
    (tmp_path / "play.txt").write_text(PLAY)
    rows = [
        {"question": f"Add {n} to 2.", "answer": f"It is {n}+2 = <<{n}+2={n + 2}>>{n + 2}.\n#### {n + 2}"}
        for n in range(60)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"gsm8k": tmp_path / "sums.jsonl", "plays": tmp_path / "play.txt"}


def made(tmp_path, sources, kind, *words):
    sizes = ["--documents", "10", "--pool", "10", "--questions", "10", *words]
    assert tool("documents").main([kind, str(sources[kind]), "--out", str(tmp_path / "out"), *sizes]) == 0
    return {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("pool", "documents", "gold", "questions")
    }


@pytest.mark.parametrize("kind", ["gsm8k", "plays"])
def test_parts_share_no_question_and_documents_hold_their_answers(tmp_path, sources, kind):
    found = made(tmp_path, sources, kind)
    asked = {name: {row["instruction"] for row in found[name]} for name in ("pool", "gold", "questions")}
    assert all(len(names) == 10 for names in asked.values()) and len(set().union(*asked.values())) == 30
    for document, pair in zip(found["documents"], found["gold"], strict=True):
        assert document["client"] == pair["client"] and pair["output"] in document["text"]
        assert "<<" not in document["text"] and "\n" not in document["text"]


def test_who_says_a_line_is_who_says_it(tmp_path, sources):
    for row in made(tmp_path, sources, "plays")["pool"]:
        line = row["instruction"].removeprefix('Who says "').removesuffix('"?')
        assert f"{row['response']}: {line}" in row["document"]


def test_more_than_there_is_is_refused(tmp_path, sources):
    with pytest.raises(SystemExit):
        made(tmp_path, sources, "gsm8k", "--documents", "900")
