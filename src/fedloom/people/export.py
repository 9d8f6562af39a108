"""Layers as files that other programs open: GLB, OBJ and PLY."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedloom.base.extras import library
from fedloom.base.files import atomic_folder, file_name, write_bytes
from fedloom.people.captures import Capture
from fedloom.people.field import Field
from fedloom.people.meshes import Mesh
from fedloom.people.scene import scene_of
from fedloom.people.surface import colours_of
from fedloom.people.uv import Textured, unwrapped

__all__ = ["glb", "textured", "write_layers"]

Layers = Mapping[str, Mesh | Textured]


def textured(layers: Mapping[str, Mesh], field: Field, capture: Capture, size: int) -> Layers:
    """Return layers with pictures of `size` texels a side, as the field tells each texel's colour by the photographs.

    A body has no colours and gets no picture: nobody is undressed.
    """
    scene = scene_of(capture).on(field.log_beta.device)
    with torch.no_grad():
        encoded = field.encoded(scene, range(scene.n_views))
    bake = partial(colours_of, field, encoded)
    return {name: mesh if mesh.colours is None else unwrapped(mesh, bake, size) for name, mesh in layers.items()}


def glb(layers: Layers) -> bytes:
    """Return layers as a binary glTF of one node each, by their names."""
    scene = library("trimesh", "export").Scene()
    for name, layer in layers.items():
        scene.add_geometry(_trimesh(layer), node_name=name, geom_name=name)
    return bytes(scene.export(file_type="glb"))


def write_layers(layers: Layers, folder: Path) -> None:
    """Write `layers.glb`, and each layer as OBJ, with its texture beside it where it has one, and as PLY."""
    with atomic_folder(folder) as new:
        write_bytes(new / "layers.glb", glb(layers))
        for name, layer in layers.items():
            mesh, stem = _trimesh(layer), file_name(name)
            write_bytes(new / f"{stem}.ply", bytes(mesh.export(file_type="ply")))
            text, beside = library("trimesh.exchange.obj", "export").export_obj(
                mesh, return_texture=True, mtl_name=f"{stem}.mtl", include_normals=True
            )
            write_bytes(new / f"{stem}.obj", text.encode())
            for other, data in beside.items():
                write_bytes(new / other, data)


def _trimesh(layer: Mesh | Textured) -> Any:
    trimesh = library("trimesh", "export")
    mesh = layer.mesh if isinstance(layer, Textured) else layer
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    if isinstance(layer, Textured):
        picture = library("PIL.Image", "export").fromarray(layer.picture_HW3)
        material = trimesh.visual.material.SimpleMaterial(image=picture)
        made.visual = trimesh.visual.TextureVisuals(uv=layer.uv_M2, material=material)
    elif mesh.colours is not None:
        made.visual.vertex_colors = np.rint(255 * mesh.colours.clip(0, 1)).astype(np.uint8)
    return made
