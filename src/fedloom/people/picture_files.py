"""Pictures on disk: read as arrays of bytes and written as PNG, never converted unasked."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.base.errors import DataError, MissingFileError, one_line
from fedloom.base.extras import library

__all__ = ["png_bytes", "read_picture"]

_CALLED = {"RGB": "RGB", "L": "grey", "P": "of a palette"}


def read_picture(path: Path, *modes: str) -> NDArray[np.uint8]:
    """Return a picture's bytes: [H, W, 3] of mode RGB, [H, W] of L (grey) and P (places in a palette).

    Raises MissingFileError, and DataError for a damaged file or one of other modes than `modes`.
    """
    pillow = library("PIL.Image", "people")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such picture; the folder is not whole, copy it anew.")
    try:
        with pillow.open(path) as opened:
            mode, pixels = str(opened.mode), np.array(opened)
    except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture ({one_line(error)}); copy it anew.") from error
    if mode not in modes:
        allowed = " or ".join(_CALLED[one] for one in modes)
        raise DataError(f"{path}: found a picture of colours {mode}, allowed is {allowed} of 8 bits; convert it.")
    return pixels


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file of a picture [H, W, 3] or [H, W]; the same bytes for the same picture."""
    image: Any = library("PIL.Image", "people").fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()
