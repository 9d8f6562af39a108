"""Run and suite directories that were written once say the same ever after: what `show`, `compare` and suites read."""

import json
import math
import runpy
import shutil

import pytest

from support.paths import GOLDEN

SCRIPT = runpy.run_path(str(GOLDEN / "make_directories.py"))
FILE = json.loads((GOLDEN / "directories" / "expected.json").read_text())


def unlike(one, other, where=""):
    """Where two JSON values differ, numbers by more than rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        return [line for key in keys for line in unlike(one.get(key), other.get(key), f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [line for n, pair in enumerate(zip(one, other, strict=True)) for line in unlike(*pair, f"{where}/{n}")]
    if isinstance(one, float) and isinstance(other, int | float):
        return [] if math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) else [where]
    return [] if one == other else [where]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A copy: an examination that is read is written again, as it was."""
    return shutil.copytree(GOLDEN / "directories", tmp_path_factory.mktemp("golden") / "directories")


@pytest.fixture(scope="module")
def found(directories):
    return json.loads(json.dumps(SCRIPT["read"](directories)))


@pytest.mark.parametrize("what", ["show", "compare", "summary", "exam", "tasks"])
def test_what_is_read_is_what_was_read_when_it_was_written(found, what):
    assert not unlike(FILE[what], found[what])


@pytest.mark.parametrize("file", ["exam.json", "scores.jsonl", "report.md", "answers.jsonl", "verdicts.jsonl"])
def test_an_examination_with_all_its_answers_asks_nobody_and_writes_the_same(found, directories, file):
    there, here = GOLDEN / "directories" / "exam" / file, directories / "exam" / file
    assert there.read_bytes() == here.read_bytes()


def test_the_page_has_the_words_that_it_had():
    assert SCRIPT["words_of_page"](GOLDEN / "directories" / "suite") == FILE["page"]


@pytest.mark.parametrize("kind", SCRIPT["RUNS"])
def test_run_files_of_then_are_run_files(kind):
    from fedloom import api

    api.load_run(GOLDEN / "directories" / kind / "run.toml")
