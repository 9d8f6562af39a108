"""The page of a person: photographs, surface, layers, classes with margins, errors, swaps, and meshes that turn."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from fedloom.base.files import write_atomic
from fedloom.people.array_files import Arrays, mesh_of
from fedloom.people.capture_files import read_capture
from fedloom.people.captures import Capture
from fedloom.people.labels import COLOURS, GARMENTS, LABELS
from fedloom.people.measuring import Measure, measured
from fedloom.people.meshes import Mesh, joined
from fedloom.people.nearest import NearestPoints
from fedloom.people.person_folder import PersonFolder
from fedloom.people.picture_files import png_bytes
from fedloom.people.pictures import GREY, by_class, heat, on_white, picture, side_by_side, yaw_cameras
from fedloom.people.truth_files import read_visible
from fedloom.people.viewer import viewer_page

__all__ = ["layers_of", "write_page"]

_MOST_CM = 3.0


@dataclass(frozen=True)
class _Section:
    title: str
    text: str
    pictures: Sequence[tuple[str, str]]
    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    scale: str = ""


def layers_of(person: PersonFolder) -> dict[str, Mesh]:
    """Return the layers that there are so far by name: the body or what is seen of it, and the garments."""
    layers = person.arrays("layers")
    names = ["skin", *(LABELS[kind] for kind in GARMENTS if f"{LABELS[kind]}.faces" in layers)]
    found = {name: mesh_of(layers, name, person.file("layers")) for name in names}
    if person.made_of("body"):
        found = {"body": mesh_of(person.arrays("body"), "body", person.file("body")), **found}
        del found["skin"]
    return found


def write_page(person: PersonFolder) -> Path:
    """Write the page of what has been made so far, and return its path."""
    capture = read_capture(Path(person.record["capture"]))
    surface = person.arrays("surface")
    mesh, hull = (mesh_of(surface, name, person.file("surface")) for name in ("surface", "hull"))
    sections = [_photographs(capture, mesh)]
    layers: dict[str, Mesh] = {"surface": mesh}
    if person.made_of("layers"):
        own = layers_of(person)
        layers |= own
        sections += [_in_layers(mesh, own), _classes(mesh, person.arrays("layers"))]
    truth = Path(person.record["capture"]) / "truth"
    told = measured(person)
    if truth.is_dir():
        sections.append(_errors(truth, mesh, hull))
    sections += _swaps(person)
    text = _template().render(
        name=capture.name,
        verdict=_verdict(told),
        n_views=len(capture.photos),
        about="The person never was: synthetic." if truth.is_dir() else "",
        facts=_facts(person, mesh),
        measures=told,
        sections=sections,
        layers=list(layers),
        viewer=viewer_page(layers),
    )
    write_atomic(person.path / "report.html", text)
    return person.path / "report.html"


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html.jinja"
    )


def _data(pictures: Sequence[NDArray[np.uint8]]) -> str:
    return base64.b64encode(png_bytes(side_by_side(pictures))).decode()


def _facts(person: PersonFolder, mesh: Mesh) -> dict[str, str]:
    steps = person.record["steps"]
    return {
        "vertices": f"{len(mesh.vertices):,}",
        **{f"{step}, seconds": f"{told['wall_s']:.1f}" for step, told in steps.items() if "_" not in step},
    }


def _photographs(capture: Capture, mesh: Mesh) -> _Section:
    shown = [picture(mesh, photo.camera, lit=False) for photo in capture.photos]
    photos = [on_white(photo) for photo in capture.photos]
    off = [np.abs(one.astype(float) - other).mean(2) / 255 for one, other in zip(shown, photos, strict=True)]
    errors = [np.rint(255 * heat(one.ravel(), 0.3)).astype(np.uint8).reshape(*one.shape, 3) for one in off]
    return _Section(
        "Photographs",
        "What was photographed, before white; the surface in its colours by the same cameras; and where they differ.",
        [("Photographs", _data(photos)), ("Surface", _data(shown)), ("Difference of colours", _data(errors))],
        scale="No difference to a difference of 0.3 and more, of colours from 0 to 1.",
    )


def _in_layers(mesh: Mesh, layers: Mapping[str, Mesh]) -> _Section:
    cameras = yaw_cameras()
    rows = [
        (name, _data([picture(one, camera) for camera in cameras])) for name, one in {"surface": mesh, **layers}.items()
    ]
    return _Section(
        "Layers",
        "From the front, the left, behind and the right. A body has no colours: nobody is undressed.",
        rows,
    )


def _classes(mesh: Mesh, layers: Arrays) -> _Section:
    cameras, labels_M, margin_M = yaw_cameras(), layers["labels"].astype(int), layers["margins"]
    classes = [picture(mesh, camera, by_class(labels_M)) for camera in cameras]
    doubts = [picture(mesh, camera, heat(1 - margin_M, 1.0), lit=False) for camera in cameras]
    colours = {LABELS[kind]: "rgb({}, {}, {})".format(*COLOURS[kind]) for kind in np.unique(labels_M)}
    return _Section(
        "Classes",
        "Which class each place of the surface is, by all views together; and how sure: its share less the next one's.",
        [("Classes", _data(classes)), ("Doubt", _data(doubts))],
        colours,
        "Sure to undecided.",
    )


def _errors(truth: Path, mesh: Mesh, hull: Mesh) -> _Section:
    cameras, distance = yaw_cameras(), NearestPoints(read_visible(truth).mesh)
    rows: list[tuple[str, str]] = []
    for name, one in (("Surface", mesh), ("Visual hull", hull)):
        off_M = distance(one.vertices).distance_N * 100
        rows.append((name, _data([picture(one, camera, heat(off_M, _MOST_CM), lit=False) for camera in cameras])))
    text = "How far each place is from the true surface; the hull is what is known without learning."
    return _Section("Errors", text, rows, scale=f"0 to {_MOST_CM:.0f} cm and more.")


def _verdict(told: Sequence[Measure]) -> str:
    """Return a sentence on the surface, beside the hull."""
    ours, theirs = (
        [one.value for one in told if (one.of, one.name) == (of, "chamfer_cm")] for of in ("surface", "hull")
    )
    if not ours:
        return "The surface has not been measured: nobody knows the person's own."
    word = "closer to the truth than" if ours < theirs else "no closer to the truth than"
    return f"The surface is {ours[0]:.2f} cm off on the mean, {word} the visual hull with {theirs[0]:.2f} cm."


def _swaps(person: PersonFolder) -> list[_Section]:
    rows: list[tuple[str, str]] = []
    for step in person.record["steps"]:
        if not step.startswith("swap_"):
            continue
        arrays, file = person.arrays(step), person.file(step)
        names = [name for name in ("body", "lower", "upper") if f"{name}.faces" in arrays]
        whole = joined(*(_coloured(mesh_of(arrays, name, file)) for name in names))
        given = " and ".join(arrays["given"].tolist())
        rows.append(
            (f"{step.removeprefix('swap_')}: {given} of another", _data([picture(whole, c) for c in yaw_cameras()]))
        )
    text = (
        "Clothes of another person on this body: carried by the body's shape and pose, and brought out of it where "
        "they met."
    )
    return [_Section("Swaps", text, rows)] if rows else []


def _coloured(mesh: Mesh) -> Mesh:
    """Return a mesh with colours and no labels, so that several can be shown as one."""
    colours_M3 = np.broadcast_to(GREY, mesh.vertices.shape) if mesh.colours is None else mesh.colours
    return Mesh(mesh.vertices, mesh.faces, colours_M3)
