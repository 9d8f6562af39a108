"""Meshes that turn in a browser: trimesh's viewer with the layers inside, one page that fetches nothing."""

from collections.abc import Mapping

import numpy as np

from fedloom.base.extras import library
from fedloom.people.export import glb
from fedloom.people.meshes import Mesh

__all__ = ["viewer_page"]


def viewer_page(layers: Mapping[str, Mesh], apart_m: float = 0.9) -> str:
    """Return a page of HTML on which the layers stand side by side and can be turned with the mouse."""
    moved = {
        name: mesh.moved(mesh.vertices + np.array((apart_m * (at - (len(layers) - 1) / 2), 0.0, 0.0)))
        for at, (name, mesh) in enumerate(layers.items())
    }
    trimesh = library("trimesh", "the page")
    scene = trimesh.load(trimesh.util.wrap_as_stream(glb(moved)), file_type="glb", process=False)
    return str(library("trimesh.viewer.notebook", "the page").scene_to_html(scene))
