"""What each factor of a separation is worth, on points of generated people whose classes are known; losing rows too."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedloom.base.errors import ConfigError, suggest
from fedloom.base.plugin import AtLeast, Fraction, check_ranges
from fedloom.base.rng import numpy_random
from fedloom.evaluation.statistics import drawn_interval
from fedloom.people.bodies.procedural import Procedural
from fedloom.people.cameras import ring
from fedloom.people.captures import Photo
from fedloom.people.dressed import dressed
from fedloom.people.labels import HAIR, LOWER, SKIN, UPPER
from fedloom.people.layer_metrics import mean_label_iou
from fedloom.people.meshes import Floats, Ints, Mesh, part
from fedloom.people.noise import ParserNoise, noisy_parses
from fedloom.people.photographs import Light, Photographs, photographed
from fedloom.people.potts import SurfacePoints, near_pairs, surface_points
from fedloom.people.raster import depths_of
from fedloom.people.scgs import FAIR_BASELINE, VISIBLE_VOTE, Separation, separate

__all__ = ["ARMS", "Condition", "Known", "ablation", "conditions", "known_people"]

_FULL = Separation()
ARMS: Mapping[str, Separation] = {
    "visible vote": VISIBLE_VOTE,
    "fair baseline": FAIR_BASELINE,
    "fair baseline with the floor": replace(FAIR_BASELINE, least_visible=_FULL.least_visible),
    "baseline with the floor, tuned": replace(FAIR_BASELINE, least_visible=_FULL.least_visible, strength=0.0015),
    "SCGS": _FULL,
    "without the floor of visibility": replace(_FULL, least_visible=0.0),
    "with incidence": replace(_FULL, incidence=True),
    "without confidence": replace(_FULL, confidence=False),
    "with edges": replace(_FULL, boundary=True),
    "without consistency": replace(_FULL, consistency=False),
    "without colours": replace(_FULL, colour=False),
    "without tempering": replace(_FULL, tempering=1.0),
    "without calibration": replace(_FULL, calibrate=False),
    "without guard": replace(_FULL, guard=False),
    "without a fixed scale": replace(_FULL, normalise=False),
}
"""The baselines, the whole, and the whole less one thing each, or with one more.

Votes at the strength of SCGS outdo their neighbours, so the fair baseline is hardly smoothed. In the tuned one evidence
is as weak beside neighbours as was best on the people that defaults were chosen by: it is what SCGS has to be measured
by.
"""
_ASKED = (SKIN, HAIR, UPPER, LOWER)
_DRAWS, _POINTS = 10_000, 6000


@dataclass(frozen=True)
class Condition:
    """How a person was photographed and parsed."""

    views: AtLeast
    calib: Fraction
    rate: Fraction

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class Known:
    """A person's visible surface with classes, as cameras see it."""

    name: str
    where: SurfacePoints
    labels_N: Ints
    shown: Photographs
    photos: tuple[Photo, ...]
    depth_VHW: Floats


def conditions() -> tuple[Condition, ...]:
    """Return what is asked by default: six views by how telling confidence is and how much is wrong, and four views."""
    six = [Condition(6, calib, rate) for calib, rate in ((1.0, 0.0), (1.0, 0.15), (1.0, 0.3), (0.3, 0.15), (0.3, 0.3))]
    return (*six, Condition(4, 1.0, 0.15))


def known_people(count: int, views: int, *names: str | int, size: int = 128) -> list[Known]:
    """Return people drawn by the names, with what a ring of cameras sees of them."""
    body, cameras = Procedural().load(), ring(views, size, size)
    people: list[Known] = []
    for place in range(count):
        worn = dressed(body, *names, place)
        scene = worn.scene()
        shown = photographed(scene, worn.shade, worn.labels_of(np.arange(len(scene.faces))), cameras, Light())
        visible, kept_M = part(scene, scene.faces[shown.seen_F])
        corners = np.full((len(scene.vertices), 3), 0.5)
        face_N = np.flatnonzero(shown.seen_F)
        for corner in range(3):
            corners[scene.faces[face_N, corner]] = worn.shade(face_N, np.eye(3)[[corner] * len(face_N)])
        coloured = Mesh(visible.vertices, visible.faces, corners[kept_M], visible.labels)
        photos = tuple(
            Photo(rgb, mask, one) for rgb, mask, one in zip(shown.rgb_VHW3, shown.mask_VHW, cameras, strict=True)
        )
        labels = np.zeros(0, np.int64) if visible.labels is None else visible.labels
        where, kept_N = _points(coloured, *names, place)
        people.append(
            Known(
                f"{'-'.join(map(str, names))}-{place}", where, labels[kept_N], shown, photos, depths_of(scene, cameras)
            )
        )
    return people


def _points(visible: Mesh, *names: str | int) -> tuple[SurfacePoints, Ints]:
    """Return points of a surface, neighbours by distance, and which of its vertices they are.

    Edges of the mesh would tell where clothes end: body and garments are separate in it.
    """
    every = surface_points(visible)
    kept_N = np.sort(numpy_random("points", *names).permutation(len(every.points_N3))[:_POINTS])
    share = len(every.points_N3) / len(kept_N)
    colours = None if every.colours_N3 is None else every.colours_N3[kept_N]
    points_N3 = every.points_N3[kept_N]
    pairs = near_pairs(points_N3)
    return SurfacePoints(points_N3, every.normals_N3[kept_N], share * every.areas_N[kept_N], pairs, colours), kept_N


def _parsed(person: Known, condition: Condition) -> list[Photo]:
    noise = ParserNoise(rate=condition.rate, calib=condition.calib, p_fail=0.05 if condition.rate else 0.0)
    parses = noisy_parses(person.shown.labels_VHW, noise, person.name)
    return [replace(photo, parse=parse) for photo, parse in zip(person.photos, parses, strict=True)]


def _scores(person: Known, condition: Condition, arms: Iterable[Separation]) -> list[float]:
    """Return the area-weighted mean intersection over union of skin, hair, upper and lower of each arm."""
    photos = _parsed(person, condition)
    found = [separate(person.where, photos, person.depth_VHW, own).labels_N for own in arms]
    return [mean_label_iou(one, person.labels_N, person.where.areas_N, _ASKED) for one in found]


def ablation(
    count: int,
    asked: Sequence[Condition],
    *names: str | int,
    arms: Mapping[str, Separation] = ARMS,
    against: str = "fair baseline",
) -> Iterator[dict[str, str | float | int]]:
    """Yield a row for each condition and arm: mean, difference to one of the arms, both with 95 % intervals.

    Intervals are those of evaluation.statistics over people drawn anew; each person meets all arms with the same noise.
    ConfigError for fewer than 2 people, of whom no interval tells anything, and for an arm that there is not.
    """
    if count < 2:
        raise ConfigError(f"ablation: found {count} people, allowed are 2 or more.")
    if against not in arms:
        raise ConfigError(f"ablation: no arm called '{against}' to compare with. {suggest(against, arms)}")
    of_views = {views: known_people(count, views, *names) for views in {one.views for one in asked}}
    drawn = numpy_random("ablation").integers(count, size=(_DRAWS, count))
    for condition in asked:
        told_AP = np.array([_scores(one, condition, arms.values()) for one in of_views[condition.views]]).T
        told = dict(zip(arms, told_AP, strict=True))
        for arm, values in told.items():
            yield {
                **vars(condition),
                "arm": arm,
                **_shown("miou", values, drawn),
                **_shown("difference", values - told[against], drawn),
            }


def _shown(name: str, values_P: Floats, drawn_RP: Ints) -> dict[str, float]:
    found = drawn_interval(float(values_P.mean()), values_P[drawn_RP].mean(1), len(values_P))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
