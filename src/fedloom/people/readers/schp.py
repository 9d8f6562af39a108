"""What Self-Correction for Human Parsing (SCHP, MIT licence) wrote of a capture's pictures.

Its extractor writes `NAME.png` for a picture `NAME.png`, labels as places in a palette, and, asked for scores,
`NAME.npy` of [H, W, K] beside it; K is 20, 18 or 7 by the data set that its weights were trained on: lip, atr, pascal.
So much is in its published program. Its weights come from their authors; whether another release writes the same is
not known here.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedloom.base.errors import DataError
from fedloom.people.array_files import read_array
from fedloom.people.captures import Capture, Parse
from fedloom.people.parses import parse_of_labels, parse_of_probabilities
from fedloom.people.picture_files import read_picture

__all__ = ["read_schp", "with_schp"]


def with_schp(capture: Capture, folder: Path, parser: str) -> Capture:
    """Return the capture with what SCHP told of its pictures `view_00.png`, `view_01.png` and so on.

    Scores are taken before labels where both lie there. `parser` is "lip", "atr" or "pascal". DataError for a file that
    is missing, damaged, of another size or of another parser.
    """
    photos = [
        replace(photo, parse=read_schp(folder / f"view_{view:02d}", parser, photo.mask.shape))
        for view, photo in enumerate(capture.photos)
    ]
    return replace(capture, photos=tuple(photos))


def read_schp(stem: Path, parser: str, size: tuple[int, ...]) -> Parse:
    """Return what lies at `stem`.npy, scores, or else at `stem`.png, labels; `size` is the picture's."""
    scores, labels = stem.with_name(stem.name + ".npy"), stem.with_name(stem.name + ".png")
    if scores.is_file():
        parse, where = _of_scores(scores, parser), scores
    else:
        parse, where = parse_of_labels(read_picture(labels, "P", "L"), parser=parser, where=str(labels)), labels
    found = parse.probabilities.shape[1:]
    if found != size:
        raise DataError(
            f"{where}: found {found[0]} x {found[1]} (rows x columns), the picture has {size[0]} x {size[1]}."
        )
    return parse


def _of_scores(file: Path, parser: str) -> Parse:
    scores_HWK = read_array(file)
    if scores_HWK.ndim != 3 or scores_HWK.dtype.kind != "f" or not np.isfinite(scores_HWK).all():
        raise DataError(f"{file}: found {scores_HWK.dtype} {scores_HWK.shape}, allowed are finite scores [H, W, K].")
    above_KHW = (scores_HWK - scores_HWK.max(2, keepdims=True)).astype(np.float32).transpose(2, 0, 1)
    likely_KHW = np.exp(above_KHW)
    return parse_of_probabilities(likely_KHW / likely_KHW.sum(0), parser=parser, where=str(file))
