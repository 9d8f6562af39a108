"""What a leakage report has found, as lines of text."""

from collections.abc import Mapping
from typing import Any

from fedloom.runs.leakage.found import LONG
from fedloom.runs.text_templates import text_template

__all__ = ["summary"]


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return what a leakage report has found as lines of text."""
    template = text_template("fedloom.runs", "leakage_summary.txt.jinja")
    return template.render(found=found, long=LONG).splitlines()
