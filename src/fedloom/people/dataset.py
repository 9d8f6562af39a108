"""A data set of people who never were: studios to train with, others to choose by and to report."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fedloom.base.errors import DataError
from fedloom.base.files import write_atomic
from fedloom.base.plugin import AtLeast, Count, Fraction, check_ranges
from fedloom.people.bodies.procedural import Procedural
from fedloom.people.body import Body
from fedloom.people.capture_files import write_capture
from fedloom.people.studios import Studio, make_studios
from fedloom.people.synthetic import person_of
from fedloom.people.truth_files import write_truth

__all__ = ["DataSet", "is_photographed", "make_data", "photograph"]

_FILE = "data.json"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Who is photographed, by whom and how."""

    studios: AtLeast = 4
    """Studios that train; each is a client."""
    people: AtLeast = 6
    """Of each studio."""
    validation: Count = 4
    """People of other studios, by whom settings are chosen."""
    test: Count = 6
    """People of yet other studios, by whom is reported."""
    size: AtLeast = 128
    """Rows and columns of a picture."""
    views: AtLeast = 6
    skew: Fraction = 0.7
    """How far studios differ: 0 alike, at 1 each has one kind of everything."""
    seed: Count = 0

    def __post_init__(self) -> None:
        check_ranges(self)

    def splits(self) -> Iterator[tuple[str, Studio, int]]:
        """Yield the studios of each split, and how many people they photograph: no studio has part in two splits."""
        counts = {"train": (self.studios, self.people), "validation": (self.validation, 1), "test": (self.test, 1)}
        for number, (split, (count, people)) in enumerate(counts.items()):
            if not count:
                continue
            for studio in make_studios(count, 3 * self.seed + number, self.skew, size=self.size, views=self.views):
                yield split, studio, people


def make_data(wanted: DataSet, out: Path) -> Iterator[str]:
    """Write captures into `out`/train, validation and test, the latter two with their truth; yield each one's folder.

    Those that are there are not made again, so that a stopped call is gone on with; other settings are refused.
    """
    table = json.dumps(asdict(wanted), sort_keys=True)
    if (out / _FILE).is_file() and (out / _FILE).read_text(encoding="utf-8") != table:
        raise DataError(f"{out}: holds people of other settings; choose another --out, or the settings in {_FILE}.")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / _FILE, table)
    body = Procedural().load()
    for split, studio, people in wanted.splits():
        for place in range(people):
            names = (split, wanted.seed, studio.name, place)
            folder = out / split / "-".join(map(str, names))
            if not is_photographed(folder, with_truth=split != "train"):
                photograph(folder, body, studio, *names, with_truth=split != "train")
            yield str(folder)


def is_photographed(folder: Path, *, with_truth: bool = True) -> bool:
    """Return whether a folder has a whole capture, and its truth where that is asked."""
    return folder.is_dir() and (not with_truth or (folder / "truth").is_dir())


def photograph(folder: Path, body: Body, studio: Studio, *names: str | int, with_truth: bool = True) -> None:
    """Write a person's capture, and beside it what is true of them."""
    capture, truth = person_of(body, studio, *names)
    write_capture(capture, folder)
    if with_truth:
        write_truth(truth, folder / "truth")
