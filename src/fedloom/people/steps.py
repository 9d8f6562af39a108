"""The steps from photographs to layers, each made once: surface, layers, body, what is worn, swaps."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fedloom.base.plugin import Positive, check_ranges
from fedloom.people.array_files import arrays_of, mesh_of
from fedloom.people.capture_files import read_capture
from fedloom.people.captures import Capture
from fedloom.people.cut import cut_layer, margins, without_specks
from fedloom.people.field import Field
from fedloom.people.fine_tune import FineTuning, Tuned, fine_tuned
from fedloom.people.labels import GARMENTS, LABELS
from fedloom.people.meshes import Floats, Mesh, part, vertex_normals
from fedloom.people.person_folder import PersonFolder
from fedloom.people.potts import surface_points
from fedloom.people.raster import depths_of
from fedloom.people.scene import Scene, scene_of
from fedloom.people.scgs import Separated, Separation, separate
from fedloom.people.surface import colours_of, field_surface, hull_surface

__all__ = ["Reconstructing", "person_surface", "reconstruct", "separate_layers"]

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Reconstructing:
    """How finely a surface is looked for."""

    cell_m: Positive = 0.015
    """Side of a cell, metres."""

    def __post_init__(self) -> None:
        check_ranges(self)


def person_surface(field: Field, scene: Scene, cell_m: float) -> Mesh:
    """Return the surface with its colours, by one pass of the field."""
    with torch.no_grad():
        encoded = field.encoded(scene.on(field.log_beta.device), range(scene.n_views))
        mesh = field_surface(field, encoded, cell_m)
        return replace(mesh, colours=colours_of(field, encoded, mesh.vertices, vertex_normals(mesh)))


def reconstruct(capture: Path, field: Field, name: str, out: Path, asked: Reconstructing, say: Say) -> PersonFolder:
    """Make a capture's surface by a field of that name; what has been made by the same is left as it is."""
    person, photographs = PersonFolder(out), read_capture(capture)
    if person.is_there:
        person.begin(capture, name)
    scene = scene_of(photographs)
    key = person.key("", (scene.key, name, asked))
    if person.is_there and person.made_of("surface") == key:
        say("surface: there already")
        return person
    with person.making("surface", key) as arrays:
        mesh = person_surface(field, scene, asked.cell_m)
        person.begin(capture, name)  # a capture of which nothing can be made leaves no folder
        arrays |= arrays_of("surface", mesh) | arrays_of("hull", hull_surface(scene, asked.cell_m))
        say(f"surface: {len(mesh.vertices):,} vertices")
    return person


def separate_layers(person: PersonFolder, asked: Separation, tuning: FineTuning, say: Say) -> None:
    """Make the layers of a surface: classes of its vertices, cut where they change, their edges tuned."""
    capture = read_capture(Path(person.record["capture"]))
    key = person.key("surface", (_parses(capture), asked, tuning))
    if person.made_of("layers") == key:
        say("layers: there already")
        return
    mesh = mesh_of(person.arrays("surface"), "surface", person.file("surface"))
    with person.making("layers", key) as arrays:
        depth_VHW = depths_of(mesh, capture.cameras)
        found = separate(surface_points(mesh), capture.photos, depth_VHW, asked)
        arrays |= {
            "log_odds": found.log_odds_NK.astype(np.float32),
            "labels": found.labels_N.astype(np.uint8),
            "margins": found.margin_N.astype(np.float32),
            "reliability": found.reliability_V,
            "calibrated": np.array((found.fit.temperature, found.fit.error, float(found.fit.confident))),
        }
        say(f"classes: {', '.join(LABELS[kind] for kind in found.classes)}{_guarded(found)}")
        scene = scene_of(capture)
        for kind in GARMENTS:
            arrays |= _layer(kind, mesh, found, lambda cut: fine_tuned(cut, mesh, scene, capture.cameras, tuning), say)
        own = np.isin(found.labels_N, GARMENTS)
        arrays |= arrays_of("skin", part(mesh, mesh.faces[~own[mesh.faces].any(1)])[0])


def _parses(capture: Capture) -> list[str]:
    """Return a hash of what was told of each photograph."""
    told = (photo.parse.probabilities.tobytes() if photo.parse else b"" for photo in capture.photos)
    return [hashlib.sha256(one).hexdigest() for one in told]


def _guarded(found: Separated) -> str:
    return "; confidence was left out: without it the views foretell one another better" if found.guarded else ""


def _layer(kind: int, mesh: Mesh, found: Separated, tuned_of: Callable[[Mesh], Tuned], say: Say) -> dict[str, Floats]:
    name, lead_M = LABELS[kind], without_specks(mesh, margins(found.log_odds_NK, kind))
    layer = cut_layer(mesh, lead_M) if kind in found.classes else None
    if layer is None:
        say(f"{name}: no garment")
        return {}
    tuned = tuned_of(layer.mesh)
    say(
        f"{name}: {len(tuned.mesh.vertices):,} vertices, {len(layer.loops)} edges, "
        f"{tuned.rough_before_mm:.1f} mm rough before and {tuned.rough_after_mm:.1f} after"
    )
    labelled = replace(tuned.mesh, labels=np.full(len(tuned.mesh.vertices), kind))
    return arrays_of(name, labelled) | {f"{name}.rough_mm": np.array((tuned.rough_before_mm, tuned.rough_after_mm))}
