"""People who never were, photographed: captures to learn from, and what is true of them to measure by."""

import numpy as np

from fedloom.people.body import Body
from fedloom.people.captures import Capture, Photo
from fedloom.people.dressed import Dressed, dressed
from fedloom.people.noise import noisy_parses
from fedloom.people.photographs import photographed
from fedloom.people.studios import Studio
from fedloom.people.truth_files import Truth

__all__ = ["make_person", "person_of"]


def person_of(body: Body, studio: Studio, *names: str | int) -> tuple[Capture, Truth]:
    """Return a person as the studio draws and photographs them, called by the names."""
    worn = dressed(body, *names, tops=studio.tops, bottoms=studio.bottoms, textures=studio.textures, tones=studio.tones)
    return make_person(worn, studio, *names)


def make_person(worn: Dressed, studio: Studio, *names: str | int) -> tuple[Capture, Truth]:
    """Return a studio's photographs of a person with what its parser told, and what is true of them.

    The names draw the parser's errors and, joined, name the capture. Nobody has to agree: there is nobody.
    """
    scene, cameras = worn.scene(), studio.cameras()
    made = photographed(scene, worn.shade, worn.labels_of(np.arange(len(scene.faces))), cameras, studio.light)
    parses = noisy_parses(made.labels_VHW, studio.noise, *names)
    photos = tuple(Photo(*told) for told in zip(made.rgb_VHW3, made.mask_VHW, cameras, parses, strict=True))
    capture = Capture("-".join(map(str, names)), photos, studio.name, consent=True)
    truth = Truth(
        scene,
        made.seen_F,
        worn.body_mesh,
        worn.garment_meshes,
        worn.betas_S,
        worn.pose_J3,
        worn.translation_3,
        {kind: one.offsets_N3 for kind, one in worn.garments.items()},
    )
    return capture, truth
