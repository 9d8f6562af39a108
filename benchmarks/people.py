"""Entry k: a person from photographs to layers, beside the straightforward calls of libraries.

    python -m benchmarks.people [--quick]

The rasteriser beside trimesh's rays through the middles of pixels (some of them, and as many times longer as there are
pixels); a surface from the band around the hull beside the same from every cell of the box; the nearest points of a
fit by a k-d tree beside all distances; and how long the steps of a person take, a training of 1,200 steps as 20 of
them tell, and its peak memory. The processor alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from benchmarks._common import (
    Figure,
    Sample,
    Settings,
    Target,
    alternate,
    entry,
    in_fresh_process,
    peak_bytes,
    ratio,
    report,
)
from fedloom.base.extras import library
from fedloom.models.starting import start_by_name
from fedloom.people.bodies.procedural import Procedural
from fedloom.people.cameras import Camera, ring
from fedloom.people.captures import Capture
from fedloom.people.cut import cut_layer, margins, without_specks
from fedloom.people.dressed import dressed
from fedloom.people.field import Field
from fedloom.people.fine_tune import fine_tuned
from fedloom.people.fit import fitted
from fedloom.people.free_topology import bound, draped
from fedloom.people.labels import GARMENTS
from fedloom.people.meshes import Mesh
from fedloom.people.penetration import layered
from fedloom.people.photometric import Weights, bundle_of, losses
from fedloom.people.potts import surface_points
from fedloom.people.raster import depths_of, rasterise
from fedloom.people.scene import HIGH, LOW, Scene, scene_of
from fedloom.people.scgs import separate
from fedloom.people.stance import Stance, stood
from fedloom.people.steps import person_surface
from fedloom.people.studios import Studio
from fedloom.people.surface import field_surface
from fedloom.people.synthetic import person_of

__all__ = ["main"]

STEPS = 20


def main(settings: Settings) -> list[Figure]:
    """Measure each step of a person."""
    torch.set_num_threads(1)
    if settings.part:
        return report(_trained_for_memory(settings))
    capture, scene, network = _person(96 if settings.quick else 128)
    return [
        _raster(settings),
        _data(settings),
        _surface(network, scene, settings),
        _nearest(settings),
        *_layers(network, scene, capture, settings),
        *_training(settings),
    ]


def _person(size: int, views: int = 6) -> tuple[Capture, Scene, Field]:
    studio = Studio(name="bench", views=views, height=size, width=size)
    capture, _ = person_of(Procedural().load(), studio, "bench")
    field = Field()
    start_by_name(field, 0, "person_field")
    field.start_at_hull()
    return capture, scene_of(capture), field.eval().requires_grad_(False)


def _raster(settings: Settings) -> Figure:
    mesh = dressed(Procedural(cell_m=0.0165).load(), "bench", tops=("long_sleeve",), bottoms=("trousers",)).scene()
    size, some = (96, 32) if settings.quick else (256, 256)
    camera = ring(1, size, size)[0]
    rays = _rays(mesh, camera, some)
    sides = {"ours": lambda: rasterise(mesh, camera), "trimesh": rays}
    seconds = alternate(sides, repeats=settings.repeats(9), settings=settings)
    whole = seconds["trimesh"].scaled(size * size / some, "s")
    work = {"faces": len(mesh.faces), "pixels": size * size, "rays of trimesh": some}
    return replace(
        ratio(
            "k",
            "a picture of a person: trimesh's rays over the rasteriser",
            ours=seconds["ours"],
            other=whole,
            work=work,
        ),
        note=f"{1000 * min(seconds['ours'].values):.0f} ms at best for {len(mesh.faces):,} triangles; the goal is 40",
    )


def _data(settings: Settings) -> Figure:
    body, studio, places = Procedural().load(), Studio(name="bench"), iter(range(10_000))
    sides = {"one": lambda: person_of(body, studio, "data", next(places))}
    seconds = alternate(sides, repeats=settings.repeats(5), settings=settings)["one"]
    what = "32 people made and photographed, as one tells"
    return Figure(entry="k", what=what, value=32 * seconds.median, unit="s", target=Target("<=", 60.0), ours=seconds)


def _rays(mesh: Mesh, camera: Camera, some: int) -> Callable[[], object]:
    trimesh = library("trimesh", "the benchmark")
    intersector = trimesh.ray.ray_triangle.RayMeshIntersector(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False))
    pixels = camera.pixels()[:: max(1, camera.height * camera.width // some)][:some]
    ways = camera.rays(pixels)
    return lambda: intersector.intersects_first(np.broadcast_to(camera.centre, ways.shape), ways)


def _surface(field: Field, scene: Scene, settings: Settings) -> Figure:
    cell_m = 0.03 if settings.quick else 0.015
    encoded = field.encoded(scene, range(scene.n_views))

    def everywhere() -> None:
        axes = [torch.arange(low, high + cell_m, cell_m) for low, high in zip(LOW, HIGH, strict=True)]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        values = torch.cat([field.pooled(some, encoded).signed_N for some in points.reshape(-1, 3).split(60_000)])
        library("skimage.measure", "the benchmark").marching_cubes(values.reshape(points.shape[:3]).numpy(), 0.0)

    sides = {"ours": lambda: field_surface(field, encoded, cell_m), "everywhere": everywhere}
    seconds = alternate(sides, repeats=settings.repeats(3), settings=settings)
    what = "a surface: every cell of the box over the band around the hull"
    return ratio("k", what, ours=seconds["ours"], other=seconds["everywhere"], work={"cell, mm": 1000 * cell_m})


def _nearest(settings: Settings) -> Figure:
    body = Procedural().load()
    points = body.template_M3[::2] + 0.01
    tree = library("scipy.spatial", "the benchmark").cKDTree
    ours, own = torch.from_numpy(points), torch.from_numpy(body.template_M3)
    sides = {"ours": lambda: tree(body.template_M3).query(points), "all": lambda: torch.cdist(ours, own).argmin(1)}
    seconds = alternate(sides, repeats=settings.repeats(9), settings=settings)
    work = {"points": len(points), "vertices": len(body.template_M3)}
    return ratio(
        "k", "nearest points: all distances over a k-d tree", ours=seconds["ours"], other=seconds["all"], work=work
    )


@dataclass
class _Person:
    """A person on the way from photographs to a swap: each step takes what the one before it made."""

    network: Field
    scene: Scene
    capture: Capture
    made: dict[str, Any] = field(default_factory=dict)

    def surface(self) -> None:
        self.made["mesh"] = person_surface(self.network, scene_of(self.capture), 0.015)

    def separated(self) -> None:
        mesh = self.made["mesh"]
        found = separate(surface_points(mesh), self.capture.photos, depths_of(mesh, self.capture.cameras))
        leads = [without_specks(mesh, margins(found.log_odds_NK, kind)) for kind in GARMENTS]
        cuts = [one for lead in leads if (one := cut_layer(mesh, lead))]
        self.made["labels"] = found.labels_N
        self.made["layers"] = [fine_tuned(one.mesh, mesh, self.scene, self.capture.cameras).mesh for one in cuts]

    def fit(self) -> None:
        mesh = self.made["mesh"]
        self.made["body"] = fitted(mesh.vertices, self.made["labels"], Procedural().load())

    def swap(self) -> None:
        body, found = Procedural().load(), self.made["body"]
        own = Stance(found.betas_S, found.pose_J3, found.translation_3)
        other = replace(own, betas_S=own.betas_S + 0.5)
        put = [draped(bound(layer, body, own), body, other) for layer in reversed(self.made["layers"])]
        layered(put, stood(body, other).mesh)


def _layers(network: Field, scene: Scene, capture: Capture, settings: Settings) -> list[Figure]:
    """Return what each step of a person takes, and all after the surface together."""
    one = _Person(network, scene, capture)
    steps = {
        "photographs to a surface": one.surface,
        "classes, cut, edges": one.separated,
        "the body": one.fit,
        "a swap": one.swap,
    }
    repeats = 1 if settings.quick else 3
    seconds = {what: alternate({what: step}, repeats=repeats, settings=settings)[what] for what, step in steps.items()}
    figures = [Figure(entry="k", what=what, value=took.median, unit="s", ours=took) for what, took in seconds.items()]
    figures[0] = replace(figures[0], target=Target("<=", 2.0))
    whole, goal = sum(figure.value for figure in figures[1:]), Target("<=", 20.0)
    return [*figures, Figure(entry="k", what="classes to swap of one person", value=whole, unit="s", target=goal)]


def _training(settings: Settings) -> list[Figure]:
    found = in_fresh_process("benchmarks.people", "training", settings)
    seconds, peak = Sample(tuple(found["seconds"]), "s"), found["peak"]
    what = "1,200 steps of 512 rays at 192 x 192 and six views, as 20 tell"
    return [
        Figure(entry="k", what=what, value=1200 * seconds.median, unit="s", target=Target("<=", 360.0), ours=seconds),
        Figure(
            entry="k", what="peak memory of that training", value=peak / 2**30, unit="GiB", target=Target("<=", 1.5)
        ),
    ]


def _trained_for_memory(settings: Settings) -> dict[str, object]:
    _, scene, _ = _person(96 if settings.quick else 192)
    field = Field()
    start_by_name(field, 0, "person_field")
    optimiser, steps = torch.optim.AdamW(field.parameters(), lr=2e-3), iter(range(10_000))

    def step() -> None:
        bundle = bundle_of(scene, next(steps) % 6, 0, 512)
        optimiser.zero_grad()
        losses(field, bundle, Weights()).total.backward()
        optimiser.step()

    seconds = alternate({"step": step}, repeats=settings.repeats(STEPS), settings=settings)["step"]
    return {"seconds": seconds.values, "peak": peak_bytes(settings)}


if __name__ == "__main__":
    entry(main)
