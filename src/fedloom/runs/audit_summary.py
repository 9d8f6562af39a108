"""What an audit has found, as lines of text."""

from collections.abc import Mapping
from typing import Any

from fedloom.runs.audit_releases import CONFIDENCE
from fedloom.runs.text_templates import text_template

__all__ = ["summary"]


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return what an audit has found as lines of text."""
    template = text_template("fedloom.runs", "audit_summary.txt.jinja")
    return template.render(found=found, confidence=CONFIDENCE).splitlines()
