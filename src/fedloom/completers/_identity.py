"""What a cache knows templates and files by: their content, not where it lies."""

from pathlib import Path
from typing import Any

from fedloom.base.config import table_of
from fedloom.base.files import file_sha256
from fedloom.contracts.federated import Template

__all__ = ["template_table"]


def template_table(template: Template) -> dict[str, Any]:
    """Return a template's settings, with the hash of a file that it names in place of the path."""
    files = {name: f"sha256:{file_sha256(value)}" for name, value in vars(template).items() if isinstance(value, Path)}
    return table_of(template) | files
