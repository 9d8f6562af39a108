"""tools/medquad.py: no disease in two parts, and pairs that belong to their documents."""

import json

import pytest

from support.tools import tool


def some_rows():
    return [
        {
            "source": f"S{at % 3}",
            "collection": "c",
            "focus": f"disease {at // 2}",
            "qtype": "information",
            "question": f"What is disease {at // 2}, part {at}?",
            "answer": f"It is number {at}. It is mild.\n It  is rare. It ends.",
        }
        for at in range(120)
    ]


def test_parts_share_no_disease_and_documents_hold_their_answers(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some_rows()))
    words = [str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--documents", "4"]
    assert tool("medquad").main(words) == 0
    found = {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("pool", "documents", "gold", "questions")
    }
    assert len(found["documents"]) == len(found["gold"]) == 12
    asked = {name: {row["instruction"].split(",")[0] for row in found[name]} for name in ("pool", "gold", "questions")}
    assert not asked["pool"] & asked["gold"] and not asked["pool"] & asked["questions"]
    assert not asked["gold"] & asked["questions"]
    for document, pair in zip(found["documents"], found["gold"], strict=True):
        assert document["client"] == pair["client"]
        assert document["text"].startswith(pair["output"])
        assert document["text"].count(".") == 3 and "\n" not in document["text"]


def test_rows_of_the_pool_are_like_no_question():
    pool = [
        {"instruction": "What is sold?", "response": "figs"},
        {"instruction": "Who is ill today?", "response": "x y"},
    ]
    questions = [{"instruction": "What is sold?", "output": "figs", "client": "a"}]
    assert tool("medquad")._unlike(pool, questions) == pool[1:]


def test_another_seed_deals_other_diseases(tmp_path):
    rows = some_rows()
    first, again, other = (tool("medquad").dealt(rows, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_sources_of_the_textbook_own_and_ask_nothing(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some_rows()))
    words = [str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--textbook", "S1"]
    assert tool("medquad").main(words) == 0
    names = ("documents", "gold", "questions", "textbook")
    found = {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in names
    }
    owners = {name: {row["client"] for row in rows} for name, rows in found.items()}
    assert owners == {"documents": {"S0", "S2"}, "gold": {"S0", "S2"}, "questions": {"S0", "S2"}, "textbook": {"S1"}}
    taught, asked = ({row["instruction"].split(",")[0] for row in found[name]} for name in ("textbook", "questions"))
    assert not taught & asked
    with pytest.raises(SystemExit):
        tool("medquad").main([*words[:-1], "S9"])


def test_nobody_trains_on_a_disease_of_the_test(tmp_path):
    rows = [*some_rows(), dict(some_rows()[5], source="S9", question="Copied?")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tool("medquad").main([str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--test", "3"]) == 0
    train, test = (
        [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "test")
    )
    assert {row["focus"] for row in test}.isdisjoint(row["focus"] for row in train)
    assert len({row["focus"] for row in test}) == len(test)
    owners = {}
    for row in rows:
        owners.setdefault(row["focus"], set()).add(row["source"])
    assert all(len(owners[row["focus"]]) == 1 for row in test)


def test_of_each_source_as_many_are_asked_as_it_has():
    rows = [
        {"focus": f"d{at}", "source": source, "question": "?", "answer": "!"}
        for source in "ab"
        for at in range(9 * (source == "b"), 9 * (source == "b") + (9 if source == "a" else 2))
    ]
    found = tool("medquad").tested(rows, 4, 0)
    assert [row["source"] for row in found["test"]] == ["a", "b", "a", "b", "a", "a"]
    assert len(found["train"]) == 5
