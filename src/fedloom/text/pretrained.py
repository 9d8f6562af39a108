"""The one door through which anything pretrained is loaded: from a local folder, and never with code of its own.

Without the word, `transformers` asks on the terminal whether to run the code that lies in a folder, and runs it after
a "y"; `tests/test_architecture.py` sees to it that no other place loads anything.
"""

from pathlib import Path
from typing import Any

__all__ = ["load"]


def load(kind: Any, folder: str | Path, **options: Any) -> Any:
    """Return what a class of `transformers` makes of a folder; nothing is downloaded, and no code in it is run."""
    return kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
