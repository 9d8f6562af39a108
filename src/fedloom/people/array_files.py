"""Arrays on disk, read without running anything that a file holds."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError, MissingFileError, one_line

__all__ = ["read_array", "read_arrays"]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file by name; MissingFileError, and DataError for a damaged one or one of objects."""
    found = _read(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: found one array without a name, allowed is an npz file; write it anew.")
    return found


def read_array(path: Path) -> NDArray[Any]:
    """Return the array of an npy file; MissingFileError, and DataError for a damaged one or one of objects."""
    found = _read(path)
    if isinstance(found, dict):
        raise DataError(f"{path}: found an npz file, allowed is an npy file of one array; write it anew.")
    return found


def _read(path: Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file of arrays; give the path of one.")
    try:
        with path.open("rb") as file:  # numpy leaves a damaged file open that it opened itself
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, BadZipFile, ZlibError, EOFError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: no file of plain arrays ({one_line(error)}); write it anew.") from error
