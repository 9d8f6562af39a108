"""The pool: read strictly, described, and apart from what is measured."""

import json

import pytest

from fedloom.base.errors import DataError
from fedloom.synthesis.pool import read_pool, refuse_overlap

ROWS = [
    {
        "id": "a",
        "domain": "trade",
        "document": "Oren sells plums.",
        "instruction": "What is sold?",
        "response": "Plums.",
    },
    {"id": "b", "domain": "care", "document": "Mira gives zolin.", "instruction": "Who gives it?", "response": "Mira."},
]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_card_says_rows_domains_origins_cost_and_hash(tmp_path):
    rows = [ROWS[0] | {"origin": "two nurses", "minutes": 4}, ROWS[1] | {"minutes": 2.5}]
    pool = read_pool(written(tmp_path / "pool.jsonl", rows))
    assert pool.card == {
        "rows": 2,
        "domains": {"care": 1, "trade": 1},
        "origins": {"not told": 1, "two nurses": 1},
        "minutes": 6.5,
        "sha256": pool.sha256,
    }
    assert [row.id for row in pool.rows] == ["a", "b"]


def test_a_pool_that_says_nothing_of_its_cost_costs_what_is_not_known(tmp_path):
    assert read_pool(written(tmp_path / "pool.jsonl", ROWS)).card["minutes"] is None
    assert read_pool("world").card["minutes"] == 0


def test_rows_without_an_id_are_numbered(tmp_path):
    rows = [{key: row[key] for key in ("document", "instruction", "response")} for row in ROWS]
    assert [row.id for row in read_pool(written(tmp_path / "pool.jsonl", rows)).rows] == ["1", "2"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([ROWS[0], ROWS[0]], "id 'a' stands twice"),
        ([ROWS[0] | {"response": " "}], "line 1, column 'response': is empty"),
        ([{key: value for key, value in ROWS[0].items() if key != "document"}], "column 'document': found null"),
        ([ROWS[0] | {"instruction": 3}], "column 'instruction': found int"),
        ([ROWS[0] | {"minutes": -1}], "column 'minutes': found -1, allowed is a number from 0 on"),
        ([ROWS[0] | {"minutes": "two"}], "column 'minutes': found 'two'"),
        ([ROWS[0] | {"minutes": True}], "column 'minutes': found True"),
    ],
)
def test_what_is_no_pool_is_refused_with_its_place(rows, why, tmp_path):
    with pytest.raises(DataError, match=why):
        read_pool(written(tmp_path / "pool.jsonl", rows))


def test_a_test_question_in_the_pool_is_refused_by_both_ids():
    ours = {"a": "Oren the baker sells plums and figs in Tavik every day.", "b": "Mira gives zolin to patients."}
    with pytest.raises(DataError, match="pool row 'b' and question 't1' are the same text"):
        refuse_overlap(ours, {"t0": "Who is Oren?", "t1": "mira gives ZOLIN to patients"}, "question")
    near = "Oren the baker sells plums and figs in Tavik every morning."
    with pytest.raises(DataError, match=r"pool row 'a' and question 't0' are nearly the same \(cosine 0\.\d\d\)"):
        refuse_overlap(ours, {"t0": near}, "question")
    refuse_overlap(ours, {"t0": "Where do patients get their plums?"}, "question")
    refuse_overlap({}, {"t0": "Who?"}, "question")
    refuse_overlap(ours, {}, "question")


def test_what_a_generated_world_asks_about_is_told_by_its_unit_and_not_by_wording():
    ours = {"w1": "where is fenlabs? in northgate", "w2": "what does rasco sell? rope"}
    theirs = {"t1": "where is kiphold? in northgate", "t2": "who is ill? mira"}
    with pytest.raises(DataError, match="pool row 'w1' and question 't1' are nearly the same"):
        refuse_overlap(ours, theirs, "question")
    units = {"t1": "kiphold", "t2": ""}
    refuse_overlap(ours, theirs, "question", units)
    with pytest.raises(DataError, match="pool row 'w3' and question 't1' are both about 'kiphold'"):
        refuse_overlap(ours | {"w3": "tell me all of kiphold."}, theirs, "question", units)
    with pytest.raises(DataError, match="pool row 'w4' and question 't2' are the same text"):
        refuse_overlap(ours | {"w4": "Who is ill? Mira"}, theirs, "question", units)
