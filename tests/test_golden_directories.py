"""Run and suite directories that were written once say the same ever after: what `show`, `compare` and suites read."""

import json
import math
import runpy
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden"
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
def found():
    return json.loads(json.dumps(SCRIPT["read"](GOLDEN / "directories")))


@pytest.mark.parametrize("what", ["show", "compare", "summary"])
def test_what_is_read_is_what_was_read_when_it_was_written(found, what):
    assert not unlike(FILE[what], found[what])


def test_the_page_has_the_words_that_it_had():
    assert SCRIPT["words_of_page"](GOLDEN / "directories" / "suite") == FILE["page"]


@pytest.mark.parametrize("kind", SCRIPT["RUNS"])
def test_run_files_of_then_are_run_files(kind):
    from fedloom import api

    api.load_run(GOLDEN / "directories" / kind / "run.toml")
