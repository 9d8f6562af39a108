"""How far a reconstructed surface is off, always beside the visual hull's and the sampling's own floor."""

from fedloom.people.field import Field
from fedloom.people.meshes import Mesh
from fedloom.people.scene import Scene
from fedloom.people.surface import field_surface, hull_surface
from fedloom.people.surface_metrics import surface_distances

__all__ = ["surface_scores"]


def surface_scores(field: Field, scene: Scene, truth: Mesh, cell_m: float) -> dict[str, float]:
    """Return both named directions and their mean, centimetres, of the field and of the hull, and the floor."""
    encoded = field.encoded(scene, range(scene.n_views))
    learnt = surface_distances(field_surface(field, encoded, cell_m), truth)
    hull = surface_distances(hull_surface(field, encoded, cell_m), truth)
    names = ("chamfer_cm", "acc_cm", "comp_cm")
    return {
        **{name: vars(learnt)[name] for name in names},
        **{f"hull_{name}": vars(hull)[name] for name in names},
        "floor_cm": learnt.floor_cm,
    }
