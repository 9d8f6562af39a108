"""From a person's layers to a body that wears them, and to another's body that wears them too."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedloom.base.config import table_of
from fedloom.base.errors import DataError
from fedloom.people.array_files import array_of, arrays_of, mesh_of
from fedloom.people.body import Body, BodyModel
from fedloom.people.dressed import a_pose
from fedloom.people.fit import Fitting, fitted
from fedloom.people.free_topology import bound, draped
from fedloom.people.labels import GARMENTS, LABELS
from fedloom.people.layer_metrics import edge_strain, signed_bias_mm
from fedloom.people.meshes import Floats, Mesh, boundary_loops
from fedloom.people.nearest import NearestPoints
from fedloom.people.penetration import layered
from fedloom.people.person_folder import PersonFolder
from fedloom.people.smpld import registered, worn
from fedloom.people.stance import Stance, stood

__all__ = ["POSES", "ROUTES", "Pose", "Route", "fit_body", "garments_of", "stance_of", "swap"]

Say = Callable[[str], None]
Route = Literal["bound", "offsets"]
ROUTES: tuple[Route, ...] = ("bound", "offsets")
Pose = Literal["own", "a", "raised"]
POSES: tuple[Pose, ...] = ("own", "a", "raised")
_MOST_LOOPS = 4
"""Of a garment that takes the body's topology: a top has four edges, trousers three."""
_LOWER_FIRST = GARMENTS[::-1]


def fit_body(person: PersonFolder, model: BodyModel, asked: Fitting, say: Say) -> None:
    """Make the body under a person's layers; it is kept with its model, shape, pose and place."""
    key = person.key("layers", (model, asked))
    if person.made_of("body") == key:
        say("body: there already")
        return
    labels_N = person.arrays("layers")["labels"].astype(int)
    mesh = mesh_of(person.arrays("surface"), "surface", person.file("surface"))
    with person.making("body", key) as arrays:
        found = fitted(mesh.vertices, labels_N, model.load(), asked)
        arrays |= arrays_of("body", found.mesh) | {
            "betas": found.betas_S,
            "pose": found.pose_J3,
            "translation": found.translation_3,
            "ease_m": found.ease_m,
            "skin": found.skin_offsets_M3,
            "model": np.array([model.name, *_told(model)]),
        }
        say(f"body: clothes {1000 * found.ease_m[0]:.0f} mm away above, {1000 * found.ease_m[1]:.0f} mm below")


def stance_of(person: PersonFolder) -> Stance:
    """Return how a person stands."""
    arrays = person.arrays("body")
    named = (array_of(arrays, name, "f", person.file("body")) for name in ("betas", "pose", "translation"))
    return Stance(*named)


def _model_of(person: PersonFolder) -> NDArray[Any]:
    return person.arrays("body")["model"]


def garments_of(person: PersonFolder) -> dict[str, Mesh]:
    """Return a person's garments by name, the lower first."""
    layers = person.arrays("layers")
    names = [LABELS[kind] for kind in _LOWER_FIRST if f"{LABELS[kind]}.faces" in layers]
    return {name: mesh_of(layers, name, person.file("layers")) for name in names}


def swap(
    giver: PersonFolder,
    taker: PersonFolder,
    model: BodyModel,
    names: tuple[str, ...],
    route: Route,
    pose: Pose,
    say: Say,
) -> str:
    """Put garments of one person on another's body, in the taker's pose or another; return the swap's name.

    What the taker wears of the same kind is left out, the rest is put on again. Refused are persons of different body
    models, garments that the giver has not, and for offsets a mesh with holes.
    """
    for one in (giver, taker):
        if not np.array_equal(_model_of(one), np.array([model.name, *_told(model)])):
            raise DataError(
                f"{one.path}: fitted with another body, allowed is '{model.name}'; fit it again: fedloom people fit."
            )
    own = garments_of(giver)
    missing = [name for name in names if name not in own]
    if missing or not own:
        raise DataError(
            f"{giver.path}: no garment {', '.join(missing) or 'at all'}, there are {', '.join(own) or 'none'}; "
            "choose of those."
        )
    body, by = model.load(), _posed(taker, pose)
    put = {name: (giver, own[name]) for name in names or tuple(own)}
    put |= {name: (taker, mesh) for name, mesh in garments_of(taker).items() if name not in put}
    order = [name for name in (LABELS[kind] for kind in _LOWER_FIRST) if name in put]
    called = f"{giver.path.resolve().name}_{'_'.join(names or tuple(own))}_{route}_{pose}"
    key = taker.key("body", (giver.made_of("body"), called))
    step = f"swap_{called}"
    if taker.made_of(step) == key:
        say(f"{step}: there already")
        return step
    routes: dict[str, Route] = {name: route if put[name][0] is giver else "bound" for name in order}
    with taker.making(step, key) as arrays:
        skin = _skin(taker, body, by)
        worn_by = [_carried(*put[name], body, by, routes[name], name) for name in order]
        arrays |= arrays_of("body", skin)
        for name, mesh in zip(order, layered(worn_by, skin), strict=True):
            arrays |= arrays_of(name, mesh)
            if routes[name] == "bound":
                owner, before = put[name]
                arrays[f"{name}.moved"] = _moved(before, _skin(owner, body, stance_of(owner)), mesh, skin)
        arrays["given"] = np.array([name for name in order if put[name][0] is giver])
        say(f"{step}: {', '.join(order)}")
    return step


def _told(model: BodyModel) -> list[str]:
    return [f"{name}={value}" for name, value in table_of(model).items() if name != "name"]


def _posed(taker: PersonFolder, pose: Pose) -> Stance:
    by = stance_of(taker)
    if pose == "own":
        return by
    pose_J3 = a_pose(len(by.pose_J3))
    if pose == "raised":
        pose_J3[16, 2], pose_J3[17, 2] = 0.5, -0.5
    return replace(by, pose_J3=pose_J3)


def _skin(person: PersonFolder, body: Body, by: Stance) -> Mesh:
    return stood(body, by, person.arrays("body")["skin"]).mesh


def _moved(before: Mesh, skin_before: Mesh, after: Mesh, skin: Mesh) -> Floats:
    """Return how a garment's edges were stretched, and its mean signed way to the body before and after, mm."""
    gaps = [signed_bias_mm(one.vertices, NearestPoints(of))[1] for one, of in ((before, skin_before), (after, skin))]
    return np.array([edge_strain(before, after.vertices), *gaps])


def _carried(owner: PersonFolder, garment: Mesh, body: Body, by: Stance, route: Route, name: str) -> Mesh:
    from_ = stance_of(owner)
    if route == "bound":
        return draped(bound(garment, body, from_), body, by)
    loops = boundary_loops(garment.faces)
    if len(loops) > _MOST_LOOPS:
        raise DataError(
            f"garment '{name}': found {len(loops)} edges, allowed are {_MOST_LOOPS}: for offsets it may have no holes; "
            "use the other route, bound."
        )
    offsets = registered(garment, body, from_)
    told = worn(offsets, body, from_.betas_S, by)
    if garment.colours is None:
        return told
    there = worn(offsets, body, from_.betas_S, from_)
    near = NearestPoints(garment)
    return replace(told, colours=near.carried(near(there.vertices), garment.colours).clip(0, 1))
