"""tools/gold_pairs.py: made pairs are held against those of their own documents."""

import json

import pytest

from support.tools import tool


@pytest.fixture
def made(tmp_path):
    """Two clients' candidates, and the true pairs."""
    rows = {
        "a": [("What is sold?", "figs", ""), ("", "", "no_pair")],
        "b": [("Who is ill?", "mira", ""), ("Where is Elst?", "far away", "ungrounded")],
    }
    for client, pairs in rows.items():
        (tmp_path / client).mkdir()
        lines = [
            {"client": client, "document": at, "instruction": x, "response": y, "reason": reason}
            for at, (x, y, reason) in enumerate(pairs)
        ]
        (tmp_path / client / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    true = [
        ("a", "What is sold?", "figs"),
        ("b", "Who is there?", "odo"),
        ("a", "x", "y"),
        ("b", "Where is Elst?", "far"),
    ]
    gold = [{"client": client, "instruction": x, "output": y} for client, x, y in true]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(one) + "\n" for one in gold))
    return tmp_path


def test_pairs_are_scored_against_their_own_documents(made):
    gold = [json.loads(line) for line in (made / "gold.jsonl").read_text().splitlines()]
    rows = tool("gold_pairs").scored(made, gold)
    assert [(row["client"], row["document"]) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [round(row["f1"]["instruction"], 3) for row in rows] == [1.0, 0.0, 0.667, 1.0]
    assert [round(row["f1"]["response"], 3) for row in rows] == [1.0, 0.0, 0.0, 0.667]


def test_what_is_printed_counts_parsed_and_kept(made, capsys):
    assert tool("gold_pairs").main([str(made), str(made / "gold.jsonl"), "--show", "1"]) == 0
    shown = capsys.readouterr().out
    assert "4 candidates, 3 parsed, 2 kept" in shown and "1 no_pair, 1 ungrounded" in shown
    assert "parsed: F1 of instruction 0.889" in shown and "kept: F1 of instruction 0.833" in shown
    assert shown.count("made:") == 1
