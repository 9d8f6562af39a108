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


def figures(text):
    """Lines that give a number of FL-GLM, or of the public benchmarks that it reports."""
    named = r"SuperGLUE|CNN/DM|XSum|FL-GLM[^|]*\b(accuracy|rouge|F1|score|metrics?)\b"
    return [
        line
        for line in text.splitlines()
        if re.search(named, line, re.IGNORECASE) and re.search(r"(?<![\d.])\d+\.\d(?!\d*\.)|\d ?%", line)
    ]


def test_no_figure_of_fl_glm_on_public_benchmarks_is_given():
    assert not [line for path in TEXTS for line in figures(path.read_text(encoding="utf-8"))]
    assert figures("FL-GLM reaches an accuracy of 71.2") and figures("| XSum | 31 % |")
    assert not figures("FL-GLM (arXiv:2406.14898) leaves one block on either side")


OF_SPLIT = [path for path in TEXTS if "split" in str(path.relative_to(ROOT))]
OF_SPLIT += [ROOT / "src/fedloom/runs/split_audit.py", ROOT / "src/fedloom/cli/split.py"]


def claims(text):
    """Sentences that speak of differential privacy and do not deny it."""
    denied = r"\b(no|not|nothing|none|never|without|refused|cannot|unaccounted)\b"
    spoken = r"differential(ly)? priva|\bDP\b|\bepsilon\b|\u03b5|\baccountant\b"
    return [
        one
        for one in re.split(r"(?<=[.:;])\s", text)
        if re.search(spoken, one, re.IGNORECASE) and not re.search(denied, one, re.IGNORECASE)
    ]


def test_no_text_of_split_training_claims_differential_privacy_of_which_it_has_no_accountant():
    assert len(OF_SPLIT) > 20
    assert not {path.name: found for path in OF_SPLIT if (found := claims(one_line(path)))}
    assert claims("With noise = 1 the split is DP.") and claims("Noise makes it differentially private")
    assert not claims("Noise is empirical: no epsilon covers it.")


def test_noise_is_called_empirical_wherever_it_is_offered():
    for name in ("src/fedloom/split/noise.py", "src/fedloom/runs/arrangements/split.py", "docs/split.md"):
        told = [one for one in re.split(r"(?<=[.])\s", one_line(ROOT / name)) if "Gaussian noise" in one]
        assert told and any("empirical" in one for one in told), name
