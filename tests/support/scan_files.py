"""Files laid out as data of scanned people are, made of people of capsules."""

import pickle

import numpy as np
from PIL import Image

from fedloom.people.cameras import ring
from fedloom.people.standing import moved_by
from support.capsules import photographed
from support.people_runs import person, surface

SIDE, UPRIGHT = 256, np.eye(3)


def thuman(root, name="0007", scale=1.0, turn=UPRIGHT, seed=4):
    """A scan whose texture tells where it is: red grows with x, green with y."""
    folder = root / name
    folder.mkdir(parents=True)
    mesh = surface(seed, 48).mesh
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    uv = ((mesh.vertices - low) / (high - low))[:, :2]
    lines = ["# made", "vn 0 0 1", "mtllib material0.mtl", "usemtl material0"]
    lines += ["v {:.6f} {:.6f} {:.6f}".format(*point) for point in scale * mesh.vertices @ turn.T + (3.0, 5.0, -2.0)]
    lines += ["vt {:.6f} {:.6f}".format(*place) for place in uv]
    lines += ["f " + " ".join(f"{corner}/{corner}/1" for corner in face) for face in mesh.faces + 1]
    (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    (folder / "material0.mtl").write_text("newmtl material0\nKd 1 1 1\nmap_Kd material0.jpeg\n")
    step = np.arange(SIDE, dtype=np.uint8)
    texture = np.stack([np.tile(step, (SIDE, 1)), np.tile(step[::-1, None], (1, SIDE)), np.full((SIDE, SIDE), 90)], 2)
    Image.fromarray(texture.astype(np.uint8)).save(folder / "material0.jpeg", quality=98, subsampling=0)
    return folder, mesh


AT = np.array([1.5, -0.4, 0.7])
"""Where the person of the sequence stands."""
FACTOR = 10


def four_d_dress(root, frame=6, seed=5):
    """A take of one frame; pictures are small ones whose pixels are made squares. Returns the photographs, too."""
    take = root / "00122" / "Outer" / "Take9"
    _, bones = person(seed, 48)
    small = [photographed(camera, bones, seed) for camera in ring(4, 128, 94, elevations=(5.0,))]
    cameras = {}
    for name, photo in zip(("0004", "0028", "0052", "0076"), moved_by(small, AT), strict=True):
        large = photo.camera.resized(1280, 940)
        extrinsics = np.concatenate([large.rotation, large.shift[:, None]], axis=1)
        cameras[name] = {"intrinsics": large.matrix, "extrinsics": extrinsics, "id": 7}
        for kind, stem, pixels in (("images", "capture", photo.rgb), ("masks", "mask", photo.mask)):
            (take / "Capture" / name / kind).mkdir(parents=True)
            square = pixels.repeat(FACTOR, 0).repeat(FACTOR, 1)
            Image.fromarray(square).save(take / "Capture" / name / kind / f"{stem}-f{frame:05d}.png", compress_level=1)
    mesh = surface(seed, 48).mesh
    labels = np.digitize(mesh.vertices[:, 1], (0.1, 0.9, 1.4, 1.6))  # as the data number them, from below
    told = np.array([2, 4, 5, 0, 1])[labels]
    scan = {"vertices": mesh.vertices + AT, "faces": mesh.faces, "colors": None, "uvs": np.zeros((len(labels), 2))}
    pickled(take / "Capture" / "cameras.pkl", cameras)
    pickled(take / "Meshes_pkl" / f"mesh-f{frame:05d}.pkl", scan)
    pickled(take / "Semantic" / "labels" / f"label-f{frame:05d}.pkl", {"scan_labels": told})
    return take, small, mesh, told


def pickled(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(value))
