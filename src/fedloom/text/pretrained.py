"""The one door through which anything pretrained is loaded: from a local folder, and never with code of its own.

Without the word, `transformers` asks on the terminal whether to run the code that lies in a folder, and runs it after
a "y"; `tests/test_architecture.py` sees to it that no other place loads anything.
"""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from logging import CRITICAL, getLogger
from pathlib import Path
from typing import Any

__all__ = ["load", "one_line", "quiet"]


@contextmanager
def quiet() -> Generator[None]:
    """Keep back what transformers and its hub log, warn of and draw as progress bars."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub = getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(CRITICAL)  # what it has to say is in its errors
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.setLevel(level)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def one_line(error: BaseException) -> str:
    """Return the first sentence or line of another library's message, with its kind."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].strip().rstrip('.') if text else 'no message'}"


def load(kind: Any, folder: str | Path, **options: Any) -> Any:
    """Return what a class of `transformers` makes of a folder; nothing is downloaded, and no code in it is run."""
    return kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
