import io
import re

import numpy as np
import pytest
import trimesh

from fedloom.people.export import glb, write_layers
from fedloom.people.meshes import Mesh, areas
from fedloom.people.uv import unwrapped
from fedloom.people.viewer import viewer_page
from support.shapes3d import sphere

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ball():
    mesh = sphere(0.5, 16)
    return Mesh(mesh.vertices, mesh.faces, (mesh.vertices + 0.5).clip(0, 1))


def test_a_glb_holds_every_layer_by_name(ball):
    scene = trimesh.load(io.BytesIO(glb({"skin": ball, "upper": ball.moved(ball.vertices * 1.1)})), file_type="glb")
    assert set(scene.geometry) == {"skin", "upper"}
    upper = scene.geometry["upper"]
    assert len(upper.faces) == len(ball.faces) and np.allclose(
        upper.bounds, 1.1 * np.array([[-0.5] * 3, [0.5] * 3]), atol=5e-3
    )
    colours = np.asarray(scene.geometry["skin"].visual.vertex_colors)[:, :3] / 255
    assert np.abs(np.sort(colours, axis=0) - np.sort(ball.colours, axis=0)).max() < 0.01


def test_a_texture_has_the_surfaces_colours_where_texels_lie(ball):
    told = unwrapped(ball, lambda points, normals: points + 0.5, size=128)
    assert np.allclose(told.mesh.vertices, ball.vertices[told.source_M])
    assert areas(told.mesh).sum() == pytest.approx(areas(ball).sum())
    assert told.uv_M2.min() >= 0 and told.uv_M2.max() <= 1
    row, column = (
        (127 - np.floor(told.uv_M2[:, 1] * 127.99)).astype(int),
        np.floor(told.uv_M2[:, 0] * 127.99).astype(int),
    )
    shown = told.picture_HW3[row, column] / 255
    assert np.abs(shown - (told.mesh.vertices + 0.5)).mean() < 0.03


def test_files_are_read_back_as_they_were(ball, tmp_path):
    layers = {"skin": ball, "upper": unwrapped(ball, lambda points, normals: points + 0.5, size=64)}
    write_layers(layers, tmp_path / "meshes")
    names = {file.name for file in (tmp_path / "meshes").iterdir()}
    assert {"layers.glb", "skin.obj", "skin.ply", "upper.obj", "upper.mtl", "upper.ply"} <= names
    assert any(name.endswith(".png") for name in names)
    for name in ("skin.obj", "skin.ply", "upper.obj", "upper.ply"):
        read = trimesh.load(tmp_path / "meshes" / name, process=False)
        assert len(read.faces) == len(ball.faces) and np.allclose(read.bounds, [[-0.5] * 3, [0.5] * 3], atol=5e-3)


def test_the_viewer_fetches_nothing(ball):
    page = viewer_page({"skin": ball, "upper": ball})
    assert "glTF" in page or "GLTFLoader" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page) and not re.search(
        r"import\s*\(?[\"']https?:", page
    )
