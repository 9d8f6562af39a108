"""Runs of the field over people of capsules, small enough for a moment."""

from dataclasses import replace
from functools import cache

import numpy as np
import skimage.measure

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Source
from fedloom.people.adapter.examples import KnownPerson, views_of
from fedloom.people.measured import KnownSurface
from fedloom.people.meshes import Mesh
from fedloom.people.scene import HIGH, LOW, scene_of
from fedloom.runs.tuning import TuningRun, read_run
from support.capsules import capsule_person, distance

STUDIOS = 3


@cache
def person(seed, size, n_views=5):
    return capsule_person(f"p{seed}", n_views, size, seed)


@cache
def surface(seed, size):
    _, bones = person(seed, size)
    axes = [np.arange(low, high, 0.02) for low, high in zip(LOW, HIGH, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = distance(points.reshape(-1, 3), bones).reshape(points.shape[:3])
    vertices, faces, _, _ = skimage.measure.marching_cubes(values, 0, spacing=(0.02,) * 3)
    mesh = Mesh(vertices + np.array(LOW), faces.astype(np.int64))
    return KnownSurface(mesh, np.ones(len(faces), bool))


@plugin("capsule_people")
class CapsulePeople(Source):
    """A person a studio, and one of the test."""

    made_up = True
    size: int = 48
    bundles: int = 2
    tested: bool = True

    def load(self):
        own = [replace(person(seed, self.size)[0], studio=f"studio{seed}") for seed in range(STUDIOS)]
        train = [view for one in own for view in views_of(one, self.bundles)]
        if not self.tested:
            return {"train": train}
        test = KnownPerson(scene_of(person(9, self.size)[0]), surface(9, self.size), {"person": "p9"})
        return {"train": train, "test": [test]}

    def brings_in(self):
        return ""


def people_table(**changes):
    table = {
        "rounds": 2,
        "seed": 1,
        "model": {"name": "person_field"},
        "task": {"name": "photometric", "rays": 48, "cell_m": 0.03},
        "data": {"name": "capsule_people"},
        "partition": {"name": "by_key"},
        "local": {"lr": 2e-3, "steps": 2, "batch": 1},
        "evaluation": {"metrics": [], "holdout": 0.0, "cluster": "person", "resamples": 20},
    }
    return table | changes


def people_run(**changes) -> TuningRun:
    return read_run(people_table(**changes))
