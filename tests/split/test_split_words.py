"""Section 0 of the specification: what has to stand where privacy of split training is described, and what may not."""

import re

from fedloom.runs.split_audit import SENTENCE
from support.paths import ROOT

TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS += [*sorted((ROOT / "src" / "fedloom" / "split").rglob("*.py")), ROOT / "src/fedloom/runs/arrangements/split.py"]
TEXTS += sorted((ROOT / "experiments").rglob("split*.toml"))


def one_line(path):
    return " ".join(path.read_text(encoding="utf-8").split())


def test_the_mandatory_sentence_stands_where_privacy_is_described():
    for name in ("docs/split.md", "src/fedloom/runs/arrangements/split.py"):
        assert SENTENCE in one_line(ROOT / name), name


def test_nothing_forbidden_is_said():
    forbidden = r"split prevents (data )?leakage|prevents data leakage|private by construction|up to 8 ?(x|times)"
    assert not [path.name for path in TEXTS if re.search(forbidden, one_line(path), re.IGNORECASE)]


def test_no_figure_of_fl_glm_on_public_benchmarks_is_given():
    lines = [line for path in TEXTS for line in path.read_text(encoding="utf-8").splitlines()]
    assert not [
        line for line in lines if re.search(r"SuperGLUE|CNN/DM|XSum", line) and re.search(r"\d\.\d|\d ?%", line)
    ]


def test_split_training_is_nowhere_called_differentially_private():
    texts = [one_line(path) for path in TEXTS if "split" in path.name]
    assert texts
    assert not [text for text in texts if re.search(r"split[^.]*\bis differentially private", text, re.IGNORECASE)]
