"""Tables on a terminal: as wide as it is, cells on several lines where they must, no number cut."""

import re

import pytest

from fedloom.base.tables import Table
from fedloom.cli import output

TABLE = Table(
    "Scores",
    ("questions", "score", "base", "final", "std. error", "n"),
    (
        ("test", "loss", "8.534 [6.432, 10.424]", "0.637 [0.157, 1.273]", "0.192", "15"),
        ("per client (test, own)", "exact_match", "", "mean 0.627, worst decile 0.871", "", "3"),
    ),
)


def printed(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    output.print_tables([TABLE])
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_a_table_fits_the_terminal(capsys, monkeypatch, columns):
    assert max(map(len, printed(capsys, monkeypatch, columns).splitlines())) <= columns


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_no_word_and_no_interval_is_cut(capsys, monkeypatch, columns):
    told = printed(capsys, monkeypatch, columns)
    for row in TABLE.rows:
        for part in re.findall(r"\[[^\]]*\]|\S+", " ".join(row)):
            assert part in told


def test_into_a_file_it_is_as_wide_as_it_needs(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.print_tables([TABLE])
    assert "8.534 [6.432, 10.424]" in capsys.readouterr().out


def test_rows_stay_in_their_columns(capsys, monkeypatch):
    lines = printed(capsys, monkeypatch, 80).splitlines()
    start = lines[1].index("final")
    assert lines[3][start:].startswith("0.637") and lines[4][start:].startswith("[0.157, 1.273]")
