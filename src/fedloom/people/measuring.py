"""What was made of a person, in numbers: beside the photographs always, beside the truth where somebody knows it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedloom.people.array_files import array_of, mesh_of
from fedloom.people.capture_files import read_capture
from fedloom.people.captures import Capture
from fedloom.people.image_metrics import psnr_db, ssim
from fedloom.people.labels import GARMENTS, HAIR, LABELS, LOWER, SKIN, UPPER
from fedloom.people.layer_metrics import label_iou, penetration, seam_chamfer_cm, signed_bias_mm
from fedloom.people.meshes import Floats, Mesh, boundary_loops, part, vertex_areas, vertex_normals
from fedloom.people.nearest import NearestPoints
from fedloom.people.person_folder import PersonFolder
from fedloom.people.pictures import on_white, picture, yaw_cameras
from fedloom.people.raster import rasterise, shaded
from fedloom.people.surface_metrics import surface_errors
from fedloom.people.truth_files import Truth, read_truth
from fedloom.people.wearing import garments_of

__all__ = ["Measure", "measured", "normal_map_l2"]

Bools = NDArray[np.bool_]
_CLASSES = (SKIN, HAIR, UPPER, LOWER)
_SEEN = 0.5
"""Share of a true seam's points that a camera must see for the seam to count: a waist under a top is in no picture."""


@dataclass(frozen=True)
class Measure:
    """One number, its unit in its name."""

    of: str
    """What is measured: the surface, the hull, a class, a layer, the body, a swap."""
    name: str
    value: float


def measured(person: PersonFolder) -> list[Measure]:
    """Return all that can be told of what has been made so far; MissingFileError where nothing has been."""
    capture = read_capture(Path(person.record["capture"]))
    surface = mesh_of(person.arrays("surface"), "surface", person.file("surface"))
    told = [*_pictures(surface, capture), *_layers(person), *_swaps(person)]
    home = Path(person.record["capture"]) / "truth"
    if home.is_dir():
        truth = read_truth(home)
        told = [*_surfaces(person, truth), *told, *_labels(person, surface, truth)]
        told += [*_garments(person, truth), *_body(person, truth)]
    return told


def _pictures(surface: Mesh, capture: Capture) -> Iterator[Measure]:
    """Tell how like its photographs the surface looks: all pixels, and those that show the person."""
    rows: list[tuple[float, ...]] = []
    for photo in capture.photos:
        shown, true = (one / 255 for one in (picture(surface, photo.camera, lit=False), on_white(photo)))
        inside = photo.mask > 127
        rows.append((psnr_db(shown, true), psnr_db(shown, true, inside), ssim(shown, true), ssim(shown, true, inside)))
    for name, value in zip(("psnr_db", "psnr_person_db", "ssim", "ssim_person"), np.mean(rows, axis=0), strict=True):
        yield Measure("photographs", name, float(value))


def _surfaces(person: PersonFolder, truth: Truth) -> Iterator[Measure]:
    arrays = person.arrays("surface")
    for of in ("surface", "hull"):
        mesh = mesh_of(arrays, of, person.file("surface"))
        errors = surface_errors(mesh, truth.scene, visible_F=truth.visible_F)
        yield Measure(of, "chamfer_cm", errors.chamfer_cm)
        yield Measure(of, "acc_cm", errors.acc_cm)
        yield Measure(of, "comp_cm", errors.comp_cm)
        yield Measure(of, "fscore_1cm", errors.fscore)
        yield Measure(of, "normal_consistency", errors.normal_consistency)
        yield Measure(of, "floor_cm", errors.floor_cm)
        yield Measure(of, "normal_map_l2", normal_map_l2(mesh, truth.scene))


def normal_map_l2(mesh: Mesh, truth: Mesh) -> float:
    """Return the mean length of the difference of normals, 0 to 2, over the pixels of four yaws that show either.

    Where one of them is not, its normal is zero: an outline that is off counts 1 a pixel.
    """
    off: list[Floats] = []
    for camera in yaw_cameras():
        maps = [shaded(rasterise(one, camera), vertex_normals(one), one.faces) for one in (mesh, truth)]
        shown_HW = (maps[0] != 0).any(2) | (maps[1] != 0).any(2)
        off.append(np.linalg.norm(maps[0] - maps[1], axis=2)[shown_HW])
    return float(np.concatenate(off).mean())


def _layers(person: PersonFolder) -> Iterator[Measure]:
    for name, mesh in _cut(person).items():
        loops = boundary_loops(mesh.faces)
        before, after = array_of(person.arrays("layers"), f"{name}.rough_mm", "f", person.file("layers"))
        yield Measure(name, "edges", float(len(loops)))
        yield Measure(name, "roughness_as_cut_mm", float(before))
        yield Measure(name, "roughness_mm", float(after))


def _cut(person: PersonFolder) -> dict[str, Mesh]:
    return garments_of(person) if person.made_of("layers") else {}


def _labels(person: PersonFolder, surface: Mesh, truth: Truth) -> Iterator[Measure]:
    """Tell intersection over union by area, of the vertices that lie nearest to what a camera sees."""
    if not person.made_of("layers") or truth.scene.labels is None:
        return
    feet = NearestPoints(truth.scene)(surface.vertices)
    true_M = truth.scene.labels[truth.scene.faces[feet.face_N, 0]]
    seen_M = truth.visible_F[feet.face_N]
    labels_M = person.arrays("layers")["labels"].astype(int)
    each = label_iou(labels_M[seen_M], true_M[seen_M], vertex_areas(surface)[seen_M], _CLASSES)
    yield Measure("classes", "miou", sum(each.values()) / len(each))
    for kind, value in each.items():
        yield Measure("classes", f"iou_{LABELS[kind]}", value)


def _garments(person: PersonFolder, truth: Truth) -> Iterator[Measure]:
    """Tell how far layers lie from the true garments that are seen, and the edges of all from their seams."""
    layers = _cut(person)
    for name, mesh in layers.items():
        true, visible_F = _true_part(truth, LABELS.index(name))
        if visible_F.any():
            errors = surface_errors(mesh, true, visible_F=visible_F)
            told = {"chamfer_cm": errors.chamfer_cm, "acc_cm": errors.acc_cm, "comp_cm": errors.comp_cm}
            yield from (Measure(name, of, value) for of, value in told.items())
    ours = [mesh.vertices[loop] for mesh in layers.values() for loop in boundary_loops(mesh.faces)]
    seams = [seam for kind in GARMENTS for seam in _seams(*_true_part(truth, kind))]
    if ours and seams:
        yield Measure("seams", "chamfer_cm", seam_chamfer_cm(ours, seams))


def _true_part(truth: Truth, kind: int) -> tuple[Mesh, Bools]:
    """Return what of the truth is of a class, and which of its faces a camera sees."""
    scene = truth.scene
    if scene.labels is None:
        return Mesh(scene.vertices, scene.faces[:0]), truth.visible_F[:0]
    own_F = (scene.labels[scene.faces] == kind).all(1)
    return part(scene, scene.faces[own_F])[0], truth.visible_F[own_F]


def _seams(garment: Mesh, visible_F: Bools) -> Iterator[Floats]:
    seen_M = np.zeros(len(garment.vertices), bool)
    seen_M[garment.faces[visible_F]] = True
    for loop in boundary_loops(garment.faces):
        if seen_M[loop].mean() >= _SEEN:
            yield garment.vertices[loop]


def _body(person: PersonFolder, truth: Truth) -> Iterator[Measure]:
    """Tell how far the body lies from the true one where clothes cover it."""
    if not person.made_of("body") or truth.body is None or truth.scene.labels is None:
        return
    body = mesh_of(person.arrays("body"), "body", person.file("body"))
    cloth = [_true_part(truth, kind)[0] for kind in GARMENTS]
    covered_M = np.zeros(len(body.vertices), bool)
    for one in cloth:
        if len(one.faces):
            covered_M |= _lies_under(body, one)
    if covered_M.any():
        distance_mm, bias_mm = signed_bias_mm(body.vertices[covered_M], NearestPoints(truth.body))
        yield Measure("body under clothes", "distance_mm", distance_mm)
        yield Measure("body under clothes", "bias_mm", bias_mm)


def _lies_under(body: Mesh, cloth: Mesh) -> Bools:
    """Return which vertices have the cloth before them, along their normals, within 6 cm."""
    feet = NearestPoints(cloth)(body.vertices)
    way_M3 = feet.points_N3 - body.vertices
    ahead_M = (way_M3 * vertex_normals(body)).sum(1) > 0.7 * feet.distance_N
    return ahead_M & (feet.distance_N < 0.06)


def _swaps(person: PersonFolder) -> Iterator[Measure]:
    for step in person.record["steps"]:
        if not step.startswith("swap_"):
            continue
        arrays, file = person.arrays(step), person.file(step)
        body = NearestPoints(mesh_of(arrays, "body", file))
        for name in (LABELS[kind] for kind in GARMENTS):
            if f"{name}.faces" not in arrays:
                continue
            worn, of = mesh_of(arrays, name, file), f"{step}: {name}"
            into = penetration(worn.vertices, body)
            yield Measure(of, "penetration_percent", into.percent)
            yield Measure(of, "penetration_deepest_mm", into.deepest_mm)
            yield from _moved(of, arrays.get(f"{name}.moved"))


def _moved(of: str, numbers: Floats | None) -> Iterator[Measure]:
    """Tell what `swap` kept of a bound garment: how edges were stretched, its mean way to the body before and after."""
    if numbers is not None:
        strain, before_mm, after_mm = numbers.tolist()
        yield Measure(of, "edge_strain", strain)
        yield Measure(of, "clearance_before_mm", before_mm)
        yield Measure(of, "clearance_mm", after_mm)
