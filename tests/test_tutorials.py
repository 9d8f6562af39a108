"""The tutorials, followed word by word."""

import ast
import contextlib
import io
import json

import pytest

from support.paths import ROOT
from support.transcripts import follow, steps, words

FOLDER = ROOT / "docs" / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.md"))
NOTEBOOK = json.loads((FOLDER / "from_python.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # runs of a user, on a machine as busy as it may be
@pytest.mark.parametrize("document", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_does_what_it_says(document, tmp_path):
    follow(document, tmp_path)


@pytest.mark.parametrize("document", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_shows_what_is_printed(document):
    assert sum(bool(one.told) for one in steps(document)) >= 3


def evaluated(source, space):
    """What a cell prints, and the value of its last line as a notebook shows it."""
    tree, printed, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), space)
        if last:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
    return printed.getvalue(), value


@pytest.mark.slow
def test_the_notebook_does_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {}
    for cell in CODE:
        printed, value = evaluated("".join(cell["source"]), space)
        told = "".join("".join(one.get("text", ())) for one in cell["outputs"])
        shown = [one["data"]["text/plain"] for one in cell["outputs"] if "data" in one]
        assert words(printed) == words(told)
        assert shown == ([] if value is None else [[repr(value)]])
