"""What may be said of people, and what not: wordings, numbers and promises that no document of this package makes."""

import re

import pytest

from support.paths import ROOT

TEXTS = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*people*.md"),
        *(ROOT / "experiments").rglob("*people*/*.toml"),
        ROOT / "experiments" / "suites" / "people.toml",
        *(ROOT / "src" / "fedloom" / "people").rglob("*.py"),
        ROOT / "src" / "fedloom" / "people" / "page.html.jinja",
        ROOT / "src" / "fedloom" / "cli" / "people.py",
        ROOT / "tools" / "people_gain.py",
    ]
)
FORBIDDEN = {
    "a direction by a name that two evaluators give to opposite ones": r"\bP2S\b|\bp2s\b",
    "speed that nobody measured on the reader's machine": r"real[- ]time",
    "a figure of USR's": r"\bUSR('s)?\b[^.\n]{0,60}\b\d+(\.\d+)? ?(dB|cm|mm|%)",
    "a formula as USR's own": r"USR's (formula|equation|loss)\b",
    "photorealism": r"photo-?realis",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_document_says(what):
    found = {
        str(path.relative_to(ROOT)): re.findall(FORBIDDEN[what], path.read_text(), re.IGNORECASE) for path in TEXTS
    }
    assert not {name: hits for name, hits in found.items() if hits}


@pytest.mark.parametrize(
    "text", ["We reach P2S 1.2 cm.", "in real-time", "USR reports 25.1 dB", "By USR's formula", "photorealistic"]
)
def test_what_is_forbidden_is_found(text):
    assert any(re.search(pattern, text, re.IGNORECASE) for pattern in FORBIDDEN.values())


def test_privacy_is_never_promised_of_people_without_an_accountant():
    """Every sentence on differential privacy names what has to be switched on for it."""
    text = (ROOT / "docs" / "people.md").read_text()
    for sentence in re.split(r"(?<=[.:])\s", text):
        if re.search(r"differential(ly)? priva", sentence, re.IGNORECASE):
            assert re.search(r"\bno\b|\bnot\b|without", sentence), sentence
    assert "accountant" in text and "synthetic people" in text and "without 3-D supervision" in text


def test_unsupervised_is_always_explained():
    text = (ROOT / "docs" / "people.md").read_text()
    at = text.index("*Unsupervised*")
    assert "without 3-D supervision" in text[at : at + 120]
