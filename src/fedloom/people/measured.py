"""How far a reconstructed surface is off, always beside the visual hull's and the sampling's own floor."""

import numpy as np
from numpy.typing import NDArray

from fedloom.people.field import Field
from fedloom.people.meshes import Mesh
from fedloom.people.scene import Scene
from fedloom.people.surface import field_surface, hull_surface
from fedloom.people.surface_metrics import SurfaceErrors, surface_errors

__all__ = ["KnownSurface", "surface_scores"]

_NAMES = ("chamfer_cm", "acc_cm", "comp_cm")


class KnownSurface:
    """The true surface of a person, and which of its faces [F] a camera sees: for measuring alone."""

    def __init__(self, mesh: Mesh, visible_F: NDArray[np.bool_]) -> None:
        self.mesh, self.visible_F = mesh, visible_F
        self._of_hulls: dict[tuple[str, float], SurfaceErrors] = {}

    def errors(self, rebuilt: Mesh) -> SurfaceErrors:
        """Return how far a reconstruction is off."""
        return surface_errors(rebuilt, self.mesh, visible_F=self.visible_F)

    def errors_of_hull(self, scene: Scene, cell_m: float) -> SurfaceErrors:
        """Return how far a scene's visual hull is off; measured once, as no training changes it."""
        key = scene.key, cell_m
        if key not in self._of_hulls:
            self._of_hulls[key] = self.errors(hull_surface(scene, cell_m))
        return self._of_hulls[key]


def surface_scores(field: Field, scene: Scene, truth: KnownSurface, cell_m: float) -> dict[str, float]:
    """Return both named directions and their mean, centimetres, of the field and of the hull, and the floor.

    The gain is what the field's mean is below the hull's.
    """
    encoded = field.encoded(scene.on(field.log_beta.device), range(scene.n_views))
    found, hull = truth.errors(field_surface(field, encoded, cell_m)), truth.errors_of_hull(scene, cell_m)
    return {
        "gain_cm": hull.chamfer_cm - found.chamfer_cm,
        **dict(zip(_NAMES, _named(found), strict=True)),
        **{f"hull_{name}": value for name, value in zip(_NAMES, _named(hull), strict=True)},
        "floor_cm": found.floor_cm,
    }


def _named(errors: SurfaceErrors) -> tuple[float, float, float]:
    return errors.chamfer_cm, errors.acc_cm, errors.comp_cm
