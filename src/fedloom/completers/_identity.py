"""What a cache knows templates and files by: their content, not where it lies."""

import hashlib
from pathlib import Path
from typing import Any

from fedloom.base.config import table_of
from fedloom.contracts.federated import Template

__all__ = ["sha256_of", "template_table"]


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def template_table(template: Template) -> dict[str, Any]:
    """Return a template's settings, with the hash of a file that it names in place of the path."""
    files = {name: f"sha256:{sha256_of(value)}" for name, value in vars(template).items() if isinstance(value, Path)}
    return table_of(template) | files
