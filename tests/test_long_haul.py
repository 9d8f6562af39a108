"""The tool that sends large rows over a link that breaks, with small ones."""

import subprocess
import sys

import pytest

from support.paths import ROOT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rows_arrive_however_often_the_link_breaks():
    words = [sys.executable, "-m", "tools.long_haul", "--megabytes", "24", "--cut-every-s", "0.4"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "the result is the mean of the rows" in told.stdout and " 0 cuts" not in told.stdout
