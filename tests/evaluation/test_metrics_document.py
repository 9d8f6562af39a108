"""docs/metrics.md against the registry: every metric has a row that says its range and direction as the code does."""

import math
import re

import pytest

from fedloom.base.plugin import lookup
from fedloom.contracts.diversity import Diversity
from fedloom.contracts.evaluation import Exam
from fedloom.contracts.federated import CorpusMetric, Metric
from support.paths import ROOT
from support.plugins import shipped

FIELDS = ("name", "what", "range", "better", "source", "file", "tests")
FAMILIES = {"metrics": Metric, "corpus_metrics": CorpusMetric}


def _rows():
    """The rows of all tables, each a dictionary of its cells."""
    lines = re.findall(r"^\| `.*\|$", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(FIELDS, row, strict=True)) for row in cells]


ROWS = _rows()
IDS = [row["name"] for row in ROWS]


def _number(value):
    return "inf" if math.isinf(value) else f"{value:g}"


def _of(kind):
    return [row for row in ROWS if row["name"].startswith(f"`{kind}/")]


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_rows_are_the_registered_plugins(kind):
    assert sorted(row["name"] for row in _of(kind)) == sorted(f"`{kind}/{name}`" for name in shipped(FAMILIES[kind]))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_ranges_are_those_of_the_code(kind):
    code = {name: lookup(FAMILIES[kind], name) for name in shipped(FAMILIES[kind])}
    expected = {f"`{kind}/{name}`": f"{_number(one.low)} to {_number(one.high)}" for name, one in code.items()}
    assert {row["name"]: row["range"] for row in _of(kind)} == expected


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_directions_are_those_of_the_code(kind):
    words = {True: "higher", False: "lower", None: "none"}
    code = {name: lookup(FAMILIES[kind], name) for name in shipped(FAMILIES[kind])}
    expected = {f"`{kind}/{name}`": words[one.higher_is_better] for name, one in code.items()}
    assert {row["name"]: row["better"] for row in _of(kind)} == expected


@pytest.mark.parametrize(("kind", "family"), [("exams", Exam), ("diversities", Diversity)])
def test_every_exam_and_diversity_has_a_row(kind, family):
    assert set(shipped(family)) <= {row["name"].strip("`").split("/")[1] for row in _of(kind)}


def test_at_least_thirty_scores_are_listed():
    assert len(set(IDS)) >= 30


def test_no_score_is_listed_twice():
    assert len(set(IDS)) == len(IDS)


def test_the_file_of_each_row_exists():
    assert not [row["name"] for row in ROWS if not (ROOT / "src" / "fedloom" / row["file"].strip("`")).is_file()]


def test_the_tests_of_each_row_exist():
    tests = {name for row in ROWS for name in row["tests"].split(", ")}
    assert not [name for name in tests if not (ROOT / "tests" / f"{name}.py").is_file()]


def test_each_metric_is_mentioned_in_each_of_its_tests():
    """By its name, or by being looped over with all that are registered."""
    missing = []
    for row in (row for kind in FAMILIES for row in _of(kind)):
        name = row["name"].strip("`").split("/")[1]
        texts = [(ROOT / "tests" / f"{test}.py").read_text(encoding="utf-8") for test in row["tests"].split(", ")]
        missing += [name for text in texts if not re.search(rf"\b{name}\b|names\((Corpus)?Metric\)", text)]
    assert not missing


def test_each_row_says_what_range_and_direction():
    def is_whole(row):
        told = row["what"] and row["source"] and row["better"] in ("higher", "lower", "none")
        return told and re.fullmatch(r"-?[\w.]+ to [\w.]+", row["range"])

    assert not [row["name"] for row in ROWS if not is_whole(row)]
