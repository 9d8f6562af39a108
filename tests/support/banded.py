"""A person of capsules in bands of colour, seen by cameras, and parsers that err: the truth of each point is known."""

import numpy as np
from scipy import ndimage
from skimage import measure

from fedloom.people.cameras import ring
from fedloom.people.captures import Parse, Photo
from fedloom.people.labels import COLOURS, HAIR, LOWER, SHOES, SKIN, UPPER
from fedloom.people.meshes import Mesh

CAPSULES = np.array(
    [  # start, end, radius
        (0, 1.00, 0, 0, 1.35, 0, 0.15),
        (0, 1.45, 0, 0, 1.66, 0, 0.10),
        (0.17, 1.38, 0, 0.45, 0.95, 0, 0.055),
        (-0.17, 1.38, 0, -0.45, 0.95, 0, 0.055),
        (0.09, 0.95, 0, 0.14, 0.08, 0, 0.08),
        (-0.09, 0.95, 0, -0.14, 0.08, 0, 0.08),
    ]
)


def signed(points):
    """Distances [N, capsule], negative within."""
    starts, ends = CAPSULES[:, :3], CAPSULES[:, 3:6]
    bone = ends - starts
    along = (np.einsum("npd,pd->np", points[:, None] - starts, bone) / (bone**2).sum(1)).clip(0, 1)
    return np.linalg.norm(points[:, None] - starts - along[..., None] * bone, axis=2) - CAPSULES[:, 6]


def true_labels(points, shoes=True):
    """The class of points on the surface, by capsule and height."""
    nearest, height = signed(points).argmin(1), points[:, 1]
    labels = np.full(len(points), UPPER)
    labels[(nearest == 0) & (height < 1.0)] = LOWER
    labels[nearest == 1] = np.where(height[nearest == 1] > 1.64, HAIR, SKIN)
    labels[(nearest >= 2) & (nearest <= 3) & (height < 1.18)] = SKIN
    labels[nearest >= 4] = LOWER
    if shoes:
        labels[(nearest >= 4) & (height < 0.15)] = SHOES
    return labels


def person(spacing=0.017, shoes=True):
    """The surface as a mesh with true labels and colours."""
    low, high = np.array([-0.6, -0.1, -0.25]), np.array([0.6, 1.85, 0.25])
    axes = [np.arange(a, b, spacing) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), 3)
    field = signed(points.reshape(-1, 3)).min(1).reshape(points.shape[:3])
    vertices, faces, _, _ = measure.marching_cubes(field, 0.0, spacing=(spacing,) * 3)
    vertices = vertices.astype(float) + low
    labels = true_labels(vertices, shoes)
    return Mesh(vertices, faces, COLOURS[labels] / 255, labels)


def seen(cameras, shoes=True):
    """Depths [V, H, W], infinite where nothing is, and true labels [V, H, W]."""
    depths, maps = [], []
    for camera in cameras:
        rays = camera.rays(camera.pixels())
        speed, depth = np.linalg.norm(rays, axis=1), np.full(len(rays), 1.8)
        open_ = np.arange(len(rays))
        for _ in range(60):
            distance = signed(camera.centre + depth[open_, None] * rays[open_]).min(1)
            depth[open_] += distance / speed[open_]
            open_ = open_[(np.abs(distance) > 5e-4) & (depth[open_] < 4.5)]
        points = camera.centre + depth[:, None] * rays
        hit = signed(points).min(1) < 4e-3
        depths.append(np.where(hit, depth, np.inf).reshape(camera.height, camera.width))
        maps.append(np.where(hit, true_labels(points, shoes), 0).reshape(camera.height, camera.width))
    return np.stack(depths), np.stack(maps)


def smooth_noise(random, shape, width):
    noise = ndimage.gaussian_filter(random.normal(size=shape), width)
    return noise / noise.std()


def erring(labels, rate, calibration, random, *, confused=False, classes=5):
    """Probabilities [K, H, W] of a parser that jitters, has blobs of wrong classes and tells how sure it is."""
    size, rows, columns = labels.shape[0], *np.mgrid[: labels.shape[0], : labels.shape[1]]
    shift = [smooth_noise(random, labels.shape, 4) * 1.2 for _ in range(2)]
    told = ndimage.map_coordinates(labels, [rows + shift[0], columns + shift[1]], order=0)
    told = np.where((labels > 0) & (told == 0), labels, told) * (labels > 0)
    if confused:
        told = np.array([0, 1, 2, 3, 5, 4])[told]
    person_ = np.argwhere(labels > 0)
    while (told != labels).mean() < rate * (labels > 0).mean():
        row, column = person_[random.integers(len(person_))]
        blob = ((rows - row) ** 2 + (columns - column) ** 2 < random.uniform(0.02, 0.06) ** 2 * size**2) & (labels > 0)
        told[blob] = random.choice([kind for kind in range(1, classes + 1) if kind != labels[row, column]])
    sure = np.where(told == labels, 0.82, 1 - 0.6 * calibration) + 0.12 * smooth_noise(random, labels.shape, 2)
    sure = sure.clip(0.2, 0.99)
    return np.where(np.arange(6)[:, None, None] == told, sure, (1 - sure) / 5)


def photographed(cameras, labels, rate=0.0, calibration=1.0, seed=0, failed=()):
    """Photographs with parses; views that `failed` take the upper class for the lower and back."""
    random = np.random.default_rng(seed)
    return [
        Photo(
            COLOURS[shown],
            ((shown > 0) * 255).astype(np.uint8),
            camera,
            Parse(erring(shown, rate, calibration, random, confused=view in failed)),
        )
        for view, (camera, shown) in enumerate(zip(cameras, labels, strict=True))
    ]


def scene(n_views=6, size=128, shoes=True):
    cameras = ring(n_views, size, size)
    return cameras, *seen(cameras, shoes)
