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


def asked_rows(text):
    """Rows of ten diseases of one source each, two rows a disease, and of a disease that two sources write about."""
    own = [(f"d{at // 2}", f"S{at // 2 % 3}", text(at)) for at in range(20)]
    shared = [("both", "S0", "shared words one"), ("both", "S1", "shared words two")]
    return [
        {"focus": focus, "source": source, "question": f"Q {words}", "answer": f"A {words}"}
        for focus, source, words in own + shared
    ]


def written(rows, tmp_path, count):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--test", str(count)]
    assert tool("medquad").main(words) == 0
    return tuple(
        [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "test")
    )


def test_nobody_trains_on_a_disease_of_the_test_and_none_is_asked_that_two_sources_know(tmp_path):
    train, test = written(asked_rows(lambda at: f"{at}a {at}b {at}c"), tmp_path, 2)
    asked = [row["focus"] for row in test]
    assert len(asked) == len(set(asked)) == 6 and "both" not in asked
    assert {row["focus"] for row in train}.isdisjoint(asked)
    assert len(train) == 22 - 2 * 6


def test_nobody_trains_on_a_copy_under_another_disease(tmp_path):
    """All ten diseases say the same; the one that two sources write about does not."""
    train, test = written(asked_rows(lambda at: "the very same words of it"), tmp_path, 2)
    assert len(test) == 6 and {row["focus"] for row in train} == {"both"}


def test_of_each_source_as_many_are_asked_as_it_has():
    rows = [
        {"focus": f"d{at}", "source": source, "question": f"q{at}", "answer": f"a{at}"}
        for source, ats in (("a", range(9)), ("b", range(9, 11)))
        for at in ats
    ]
    found = tool("medquad").tested(rows, 4, 0)
    assert [row["source"] for row in found["test"]] == ["a", "b", "a", "b", "a", "a"]
    assert len(found["train"]) == 5
