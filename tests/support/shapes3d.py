"""Meshes of simple bodies: what is measured on them is known."""

import numpy as np

from fedloom.people.meshes import Mesh


def grid(rows, columns, around):
    """Faces of a grid of vertices, row after row, whose columns close to a ring if `around`."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns if around else columns - 1), indexing="ij")
    at = lambda r, c: (r * columns + c % columns).ravel()  # noqa: E731
    a, b, c, d = at(row, column), at(row, column + 1), at(row + 1, column), at(row + 1, column + 1)
    return np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])


def sphere(radius, rows):
    """A closed sphere of triangles, `rows` from pole to pole."""
    columns = 2 * rows
    pitch = np.linspace(0, np.pi, rows + 1)[1:-1]
    yaw = np.arange(columns) * 2 * np.pi / columns
    ring = np.stack(
        np.broadcast_arrays(
            np.sin(pitch)[:, None] * np.sin(yaw), -np.cos(pitch)[:, None], np.sin(pitch)[:, None] * np.cos(yaw)
        ),
        2,
    ).reshape(-1, 3)
    bottom, top = len(ring), len(ring) + 1
    first, last = np.arange(columns), np.arange(columns) + len(ring) - columns
    caps = [
        np.stack([np.full(columns, bottom), np.roll(first, -1), first], 1),
        np.stack([np.full(columns, top), last, np.roll(last, -1)], 1),
    ]
    vertices = radius * np.concatenate([ring, [[0, -1, 0], [0, 1, 0]]])
    return Mesh(vertices, np.concatenate([grid(rows - 1, columns, around=True), *caps]))


def tube(radius, low, high, rows, columns):
    """An open cylinder about the y axis."""
    height, yaw = np.linspace(low, high, rows), np.arange(columns) * 2 * np.pi / columns
    circle = np.stack(np.broadcast_arrays(radius * np.sin(yaw), height[:, None], radius * np.cos(yaw)), 2)
    return Mesh(circle.reshape(-1, 3), grid(rows, columns, around=True))
