"""A capture's folder, read and written: what somebody lays down to have a person learnt from or reconstructed.

    capture.json      {"format": 1, "name": "p1", "studio": "north", "consent": true, "units": "m", "parser": "fedloom",
                       "cameras": [{"K": 3 x 3, "R": 3 x 3, "t": [3], "height": 128, "width": 128}, ...]}
    view_00.png ...   photographs, RGB of 8 bits, one a camera
    mask_00.png ...   whether a pixel shows the person, grey of 8 bits: 0 to 255 for 0 to 1
    parse_00.npz ...  what a parser told: `probabilities` [K, H, W], or `labels` and `confidence` [H, W]; optional
    parse_00.png ...  or its labels alone, grey or as places in a palette

K, R and t take the world's points to pixels as OpenCV does (`cameras`); K classes are those of the named parser
(`labels.PARSERS`). Nothing else in the folder is opened; the truth of synthetic people lies beside it (`truth_files`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.base.config import build
from fedloom.base.errors import ConfigError, DataError, MissingFileError, one_line
from fedloom.base.files import atomic_folder
from fedloom.base.plugin import AtLeast, check_ranges
from fedloom.people.array_files import read_arrays, write_arrays
from fedloom.people.cameras import Camera, refuse_odd_cameras
from fedloom.people.captures import Capture, Parse, Photo
from fedloom.people.parses import parse_of_labels, parse_of_probabilities
from fedloom.people.picture_files import png_bytes, read_picture
from fedloom.people.scene import HIGH, LOW
from fedloom.people.standing import middle_of

__all__ = ["capture_folders", "read_capture", "read_captures", "refuse_odd_capture", "write_capture"]

_FILE = "capture.json"
_FEWEST, _SMALLEST = 3, 0.005

_Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class _CameraEntry:
    K: _Rows
    R: _Rows
    t: tuple[float, ...]
    height: AtLeast
    width: AtLeast

    def __post_init__(self) -> None:
        check_ranges(self)
        for key, rows in (("K", self.K), ("R", self.R), ("t", (self.t,))):
            wanted = 1 if key == "t" else 3
            if [len(row) for row in rows] != [3] * wanted:
                shape = "a list of 3 numbers" if key == "t" else "3 rows of 3 numbers"
                raise ConfigError(f"{key}: found rows of {[len(row) for row in rows]} numbers, allowed are {shape}.")

    def camera(self) -> Camera:
        return Camera(np.array(self.K), np.array(self.R), np.array(self.t), self.height, self.width)


@dataclass(frozen=True)
class _Entry:
    format: Literal[1]
    name: str
    units: Literal["m"]
    cameras: tuple[_CameraEntry, ...]
    studio: str = ""
    consent: bool = False
    parser: str = "fedloom"


def read_captures(root: Path) -> list[Capture]:
    """Return the captures of a folder's sub-folders, by the names of these.

    DataError where there is none, where two have one name, or where one is refused.
    """
    captures: dict[str, Capture] = {}
    for folder in capture_folders(root):
        capture = read_capture(folder)
        if capture.name in captures:
            raise DataError(f"{folder / _FILE}: name: found a second capture called '{capture.name}'; rename one.")
        captures[capture.name] = capture
    return list(captures.values())


def capture_folders(root: Path) -> list[Path]:
    """Return the sub-folders that hold a capture, by name; DataError where there is none."""
    folders = sorted(file.parent for file in root.glob(f"[!.]*/{_FILE}"))  # hidden: of a writing that was cut short
    if not folders:
        raise DataError(
            f"{root}: found no capture, allowed is a folder of folders with a {_FILE} in each; check the path."
        )
    return folders


def read_capture(folder: Path) -> Capture:
    """Return the capture of a folder; DataError, in one line, for whatever it cannot be learnt from."""
    entry = _entry(folder / _FILE)
    where = str(folder)
    if not entry.consent:  # before a single picture is opened
        raise DataError(f"{where}: {_NO_CONSENT}")
    _refuse_other_views(folder, len(entry.cameras))
    photos = tuple(_photo(folder, view, one, entry.parser) for view, one in enumerate(entry.cameras))
    capture = Capture(entry.name, photos, entry.studio, entry.consent)
    refuse_odd_capture(capture, where)
    return capture


def _entry(file: Path) -> _Entry:
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give the folder of a capture.")
    try:
        table: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: no valid JSON ({one_line(error)}); write it anew.") from error
    if not isinstance(table, dict):
        raise DataError(f"{file}: found {type(table).__name__}, allowed is a table of a capture's keys.")
    try:
        return build(_Entry, table)
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from error


def _refuse_other_views(folder: Path, n_views: int) -> None:
    found = {file.name for file in folder.glob("view_*.png")}
    if odd := sorted(found - {f"view_{view:02d}.png" for view in range(n_views)}):
        raise DataError(
            f"{folder / odd[0]}: has no camera, {_FILE} names {n_views}; add its camera or remove the picture."
        )


def _photo(folder: Path, view: int, entry: _CameraEntry, parser: str) -> Photo:
    rgb_HW3 = read_picture(folder / f"view_{view:02d}.png", "RGB")
    mask_HW = read_picture(folder / f"mask_{view:02d}.png", "L")
    return Photo(rgb_HW3, mask_HW, entry.camera(), _read_parse(folder, view, parser))


def _read_parse(folder: Path, view: int, parser: str) -> Parse | None:
    picture, arrays = folder / f"parse_{view:02d}.png", folder / f"parse_{view:02d}.npz"
    if picture.exists() and arrays.exists():
        raise DataError(
            f"{picture}: found an npz of the same view beside it, allowed is one of them; remove the other."
        )
    if picture.exists():
        return parse_of_labels(read_picture(picture, "L", "P"), parser=parser, where=str(picture))
    return _parse_of(read_arrays(arrays), parser, str(arrays)) if arrays.exists() else None


def _parse_of(arrays: dict[str, NDArray[Any]], parser: str, where: str) -> Parse:
    kinds = {name: array.dtype.kind for name, array in arrays.items()}
    if kinds == {"probabilities": "f"}:
        return parse_of_probabilities(arrays["probabilities"], parser=parser, where=where)
    if kinds.keys() == {"labels", "confidence"} and kinds["labels"] in "iu" and kinds["confidence"] == "f":
        return parse_of_labels(arrays["labels"], arrays["confidence"], parser=parser, where=where)
    raise DataError(
        f"{where}: found {sorted(arrays)}, allowed are `probabilities` of floats, or `labels` of whole "
        "numbers with `confidence`."
    )


_NO_CONSENT = (
    "consent: found none, allowed is true: the person has to agree to be reconstructed; ask them, then say so."
)


def refuse_odd_capture(capture: Capture, where: str) -> None:
    """Refuse a capture that nothing can be learnt from, or may be: DataError, naming `where` and the view."""
    if not capture.consent:
        raise DataError(f"{where}: {_NO_CONSENT}")
    if not capture.name:
        raise DataError(f"{where}: name: found none; give the person a name, or a number.")
    n_views = len(capture.photos)
    if n_views < _FEWEST:
        raise DataError(
            f"{where}: found {n_views} photograph{'s' * (n_views != 1)}, allowed are {_FEWEST} or more, better 4 to 8; "
            "photograph the person from more sides."
        )
    for view, photo in enumerate(capture.photos):
        _refuse_odd_photo(photo, capture.photos[0], f"{where}, view {view}")
    refuse_odd_cameras(capture.cameras, where)
    _refuse_elsewhere(capture, where)


def _refuse_elsewhere(capture: Capture, where: str) -> None:
    """Refuse a person outside the box that is looked into: the middles of all masks tell where they stand."""
    middle = middle_of(capture.photos)
    if not ((middle >= LOW) & (middle <= HIGH)).all():
        raise DataError(
            f"{where}: found a person at {middle.round(2).tolist()} m, allowed are x, y (up) and z from {list(LOW)} to "
            f"{list(HIGH)}; move the world's origin between their feet."
        )


def _refuse_odd_photo(photo: Photo, first: Photo, where: str) -> None:
    size = photo.rgb.shape[:2]
    others = {"its mask": photo.mask.shape, "its camera": (photo.camera.height, photo.camera.width)}
    if photo.parse:
        others["its parse"] = photo.parse.probabilities.shape[1:]
    for other, found in (others | {"view 0": first.rgb.shape[:2]}).items():
        if found != size:
            raise DataError(
                f"{where}: found a picture of {size[0]} x {size[1]} (rows x columns), {other} has "
                f"{found[0]} x {found[1]}; bring all to one size."
            )
    share = float((photo.mask > 127).mean())
    if share < _SMALLEST:
        raise DataError(
            f"{where}: found a mask that shows the person in {share:.2%} of the pixels, allowed is {_SMALLEST:.1%} "
            "or more; leave the view out or mend its mask."
        )


def write_capture(capture: Capture, folder: Path) -> None:
    """Write a capture, whole or not at all, in place of an older one; refused is what `read_capture` would refuse."""
    refuse_odd_capture(capture, f"capture '{capture.name}'")
    with atomic_folder(folder) as new:
        for view, photo in enumerate(capture.photos):
            (new / f"view_{view:02d}.png").write_bytes(png_bytes(photo.rgb))
            (new / f"mask_{view:02d}.png").write_bytes(png_bytes(photo.mask))
            if photo.parse:
                likely = photo.parse.probabilities.astype(np.float16)
                write_arrays(new / f"parse_{view:02d}.npz", {"probabilities": likely})
        (new / _FILE).write_text(_text(capture), encoding="utf-8")


def _text(capture: Capture) -> str:
    cameras = [
        {
            "K": camera.matrix.tolist(),
            "R": camera.rotation.tolist(),
            "t": camera.shift.tolist(),
            "height": camera.height,
            "width": camera.width,
        }
        for camera in capture.cameras
    ]
    head = {"format": 1, "name": capture.name, "studio": capture.studio, "consent": capture.consent, "units": "m"}
    return json.dumps(head | {"parser": "fedloom", "cameras": cameras}, indent=1) + "\n"
