"""Balls as meshes: surfaces of which everything is known."""

import numpy as np

from fedloom.people.meshes import Mesh


def ball(radius=0.5, middle=(0, 0.9, 0), n=60):
    """A ball of n rows and 2 n columns of vertices, faces counter-clockwise from outside."""
    up, around = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n), indexing="ij")
    points = np.stack([np.sin(up) * np.sin(around), np.cos(up), np.sin(up) * np.cos(around)], axis=-1)
    at = np.arange(2 * n * n).reshape(n, 2 * n)
    a, b, c, d = at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]
    faces = np.concatenate([np.stack(one, -1).reshape(-1, 3) for one in ((a, b, c), (a, c, d))])
    return Mesh(radius * points.reshape(-1, 3) + np.array(middle), faces)
