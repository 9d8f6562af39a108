"""A person of capsules that is photographed by sphere tracing: a world of known distances beside the package's own."""

import numpy as np

from fedloom.people.cameras import ring
from fedloom.people.captures import Capture, Photo

BONES = np.array(
    [  # from, to, radius
        (0, 0.95, 0, 0, 1.40, 0, 0.14),
        (0, 1.62, 0, 0, 1.68, 0, 0.10),
        (-0.10, 0.90, 0, -0.14, 0.10, 0, 0.07),
        (0.10, 0.90, 0, 0.14, 0.10, 0, 0.07),
        (-0.18, 1.38, 0, -0.55, 0.95, 0.05, 0.045),
        (0.18, 1.38, 0, 0.55, 0.95, 0.05, 0.045),
        (0, 1.40, 0, 0, 1.55, 0, 0.055),
    ]
)


def distance(points_N3, bones=BONES):
    """The signed distance of a union of capsules, exact outside."""
    found = []
    for bone in bones:
        start, end, radius = bone[:3], bone[3:6], bone[6]
        along = end - start
        share = np.clip((points_N3 - start) @ along / (along @ along), 0, 1)
        found.append(np.linalg.norm(points_N3 - start - share[:, None] * along, axis=1) - radius)
    return np.min(found, axis=0)


def coloured(points_N3, seed=0):
    """Checks that differ from person to person."""
    drawn = np.random.default_rng(seed)
    first, second = drawn.uniform(0.1, 0.9, (2, 3))
    odd = (np.floor(points_N3 * drawn.uniform(6, 12)).sum(1) % 2)[:, None]
    return first * odd + second * (1 - odd)


def traced(camera, bones=BONES):
    """Depths of all pixels, infinite where nothing is hit."""
    direction = camera.rays(camera.pixels())
    length, t = np.linalg.norm(direction, axis=1), np.full(len(direction), 1.0)
    near, going = np.full(len(t), np.inf), np.arange(len(t))
    for _ in range(60):
        near[going] = distance(camera.centre + t[going, None] * direction[going], bones)
        t[going] += near[going] / length[going]
        going = going[(near[going] > 1e-3) & (t[going] < 5)]
    return np.where(np.abs(near) < 2e-3, t, np.inf)


def photographed(camera, bones=BONES, seed=0):
    """A photograph of 2 x 2 samples a pixel, with a soft mask."""
    big = camera.resized(2 * camera.height, 2 * camera.width)
    depth = traced(big, bones)
    seen = np.isfinite(depth)
    points = big.centre + np.where(seen, depth, 0)[:, None] * big.rays(big.pixels())
    colours = np.where(seen[:, None], coloured(points, seed), 0.8)
    shape = camera.height, 2, camera.width, 2
    rgb = (255 * colours).reshape(*shape, 3).mean((1, 3)).round().astype(np.uint8)
    mask = (255.0 * seen).reshape(shape).mean((1, 3)).round().astype(np.uint8)
    return Photo(rgb, mask, camera)


def capsule_person(name="p", n_views=6, size=128, seed=0, bones=None):
    """A capture of a person of capsules, limbs a little different for each seed."""
    drawn = np.random.default_rng(seed)
    bones = BONES.copy() if bones is None else bones
    bones[:, 6] *= drawn.uniform(0.9, 1.2, len(bones))
    photos = tuple(photographed(camera, bones, seed) for camera in ring(n_views, size, size))
    return Capture(name, photos, studio="s", consent=True), bones
