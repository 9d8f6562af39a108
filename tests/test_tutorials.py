"""The tutorials, followed word by word."""

import pytest

from support.paths import ROOT
from support.transcripts import follow, steps

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.mark.parametrize("document", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_does_what_it_says(document, tmp_path):
    follow(document, tmp_path)


@pytest.mark.parametrize("document", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_shows_what_is_printed(document):
    assert sum(bool(one.told) for one in steps(document)) >= 3
