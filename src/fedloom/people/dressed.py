"""A person who never was: a body in a shape and a pose, what it wears, and the colours of all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fedloom.base import rng
from fedloom.people.body import Body
from fedloom.people.garments import BOTTOMS, TOPS, Garment, garment
from fedloom.people.labels import HAIR, SHOES, SKIN
from fedloom.people.meshes import Floats, Ints, Mesh, joined
from fedloom.people.stance import Stance, Stood, stood
from fedloom.people.textures import KINDS, Texture, drawn_texture

__all__ = ["N_TONES", "Dressed", "a_pose", "dressed"]

_SHOULDERS, _ELBOWS, _HIPS, _KNEES = (16, 17), (18, 19), (1, 2), (4, 5)
_A_POSE = 0.95
"""How far arms hang from sideways, radians."""
_SKIN_TONES = np.array(
    [(0.96, 0.80, 0.69), (0.88, 0.67, 0.53), (0.71, 0.49, 0.35), (0.50, 0.33, 0.23), (0.33, 0.22, 0.16)]
)
N_TONES = len(_SKIN_TONES)


def a_pose(n_joints: int) -> Floats:
    """Return the pose [J, 3] of arms that hang slantwise: where photographs of people for measuring are taken."""
    pose_J3 = np.zeros((n_joints, 3))
    pose_J3[16, 2], pose_J3[17, 2] = -_A_POSE, _A_POSE
    return pose_J3


@dataclass(frozen=True, eq=False)
class Dressed:
    """A dressed person."""

    body: Body
    betas_S: Floats
    pose_J3: Floats
    translation_3: Floats
    garments: Mapping[str, Garment]
    """By kind, the lower first."""
    textures: Mapping[str, Texture]
    """Of each garment, and of "skin", "hair" and "shoes"."""

    @cached_property
    def body_labels_M(self) -> Ints:
        """The class of each of the body's vertices."""
        x, y, z = self.body.template_M3.T
        labels_M = np.full(len(y), SKIN)
        labels_M[(y > 1.655) | ((y > 1.54) & (z < -0.02) & (np.abs(x) < 0.12))] = HAIR
        labels_M[y < 0.085] = SHOES
        return labels_M

    @cached_property
    def _stood(self) -> Stood:
        return stood(self.body, Stance(self.betas_S, self.pose_J3, self.translation_3))

    def posed(self, rest_N3: Floats, shapes_N3S: Floats, weights_NJ: Floats) -> Floats:
        """Return points [N, 3] of the rest pose of the mean shape in the person's own shape and pose."""
        shaped_N3 = rest_N3 + shapes_N3S[:, :, : len(self.betas_S)] @ self.betas_S
        return self._stood.carried(shaped_N3, weights_NJ)

    @cached_property
    def body_mesh(self) -> Mesh:
        """The body, whole under the clothes."""
        return replace(self._stood.mesh, labels=self.body_labels_M)

    @cached_property
    def garment_meshes(self) -> Mapping[str, Mesh]:
        """The garments by kind."""
        return {
            kind: Mesh(
                self.posed(one.rest.vertices, one.shapes_N3S, one.weights_NJ), one.rest.faces, labels=one.rest.labels
            )
            for kind, one in self.garments.items()
        }

    def scene(self) -> Mesh:
        """Return all that is photographed: the body, then the garments in their order."""
        return joined(self.body_mesh, *self.garment_meshes.values())

    @cached_property
    def _rest(self) -> Mesh:
        return joined(
            Mesh(self.body.template_M3, self.body.faces_F3),
            *(Mesh(g.rest.vertices, g.rest.faces) for g in self.garments.values()),
        )

    @cached_property
    def _parts_F(self) -> Ints:
        """Which texture each face of the scene has."""
        names = list(self.textures)
        own = {SKIN: names.index("skin"), HAIR: names.index("hair"), SHOES: names.index("shoes")}
        of_body = np.array([own.get(label, 0) for label in range(max(own) + 1)])
        parts = [of_body[self.body_labels_M[self.body.faces_F3[:, 0]]]]
        parts += [np.full(len(one.rest.faces), names.index(kind)) for kind, one in self.garments.items()]
        return np.concatenate(parts)

    def labels_of(self, face_N: Ints) -> Ints:
        """Return the classes of faces of the scene."""
        classes = [self.body_labels_M[self.body.faces_F3[:, 0]]]
        classes += [np.full(len(one.rest.faces), one.label) for one in self.garments.values()]
        return np.concatenate(classes)[face_N]

    def shade(self, face_N: Ints, barycentric_N3: Floats) -> Floats:
        """Return the colours [N, 3] of places on faces of the scene."""
        rest_N3 = np.einsum("nc,ncx->nx", barycentric_N3, self._rest.vertices[self._rest.faces[face_N]])
        colours_N3, part_N = np.zeros((len(face_N), 3)), self._parts_F[face_N]
        for number, texture in enumerate(self.textures.values()):
            own_N = part_N == number
            colours_N3[own_N] = texture(rest_N3[own_N])
        return colours_N3.clip(0, 1)


def dressed(
    body: Body,
    *names: str | int,
    tops: Sequence[str] = TOPS[:2],
    bottoms: Sequence[str] = BOTTOMS[:2],
    textures: Sequence[str] = KINDS,
    tones: Sequence[int] = range(N_TONES),
) -> Dressed:
    """Return a person drawn by the names: shape, pose about the A-pose, one top and, but under a dress, one bottom,
    and one of the tones of skin, 0 the lightest.
    """
    drawn = rng.numpy_random("person", *names)
    pose_J3 = a_pose(body.n_joints)
    for joints, spread in ((_SHOULDERS, (0.1, 0.1, 0.12)), (_ELBOWS, (0.03, 0.12, 0.03)), (_HIPS, (0.08, 0.05, 0.05))):
        pose_J3[list(joints)] += drawn.normal(0, 1, (2, 3)) * spread
    pose_J3[list(_KNEES), 0] += np.abs(drawn.normal(0, 0.06, 2))
    pose_J3[0, 1] = drawn.normal(0, 0.1)
    betas_S = drawn.normal(0, 1, body.shape_directions_M3S.shape[2]).clip(-2, 2)
    top = tops[int(drawn.integers(len(tops)))]
    kinds = [top] if top == "dress" else [bottoms[int(drawn.integers(len(bottoms)))], top]
    worn = {kind: garment(body, kind, drawn) for kind in kinds}
    tone_3 = _SKIN_TONES[tones[int(drawn.integers(len(tones)))]] * drawn.uniform(0.93, 1.05)
    hair_3, shoes_3 = drawn.uniform(0.05, 0.35) * np.array((1.0, 0.8, 0.65)), drawn.uniform(0.05, 0.6, 3)
    colours = {
        name: Texture("plain", colour, colour)
        for name, colour in (("skin", tone_3), ("hair", hair_3), ("shoes", shoes_3))
    }
    cloths = {kind: drawn_texture(drawn, tuple(textures)) for kind in worn}
    lowest = Dressed(body, betas_S, pose_J3, np.zeros(3), worn, {**colours, **cloths})
    floor_3 = np.array((0.0, -lowest.body_mesh.vertices[:, 1].min(), 0.0))
    return Dressed(body, betas_S, pose_J3, floor_3, worn, {**colours, **cloths})
