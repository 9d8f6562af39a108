"""Photographs as examples: what is trained on, and what is measured by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedloom.contracts.examples import Wordless
from fedloom.people.captures import Capture
from fedloom.people.measured import KnownSurface
from fedloom.people.scene import Scene, scene_of

__all__ = ["KnownPerson", "View", "views_of"]


class _OfPerson(Wordless):
    """An example of a person's photographs."""

    __slots__ = ()
    scene: Scene

    @property
    def key(self) -> str:
        """A hash of all photographs of the person: who is held out is held out from every side."""
        return self.scene.key


@dataclass(frozen=True, slots=True, repr=False)
class View(_OfPerson):
    """Some pixels of one photograph of a person, to be told from the others; there is no shape in it."""

    scene: Scene
    target: int
    place: int
    """Which of the photograph's bundles of pixels."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __repr__(self) -> str:
        """Return all of it, the photographs by their hash."""
        return f"View({self.key}, {self.target}, {self.place}, {dict(self.tags)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class KnownPerson(_OfPerson):
    """A person whose surface is known, for tests alone: nothing learns from it."""

    scene: Scene
    surface: KnownSurface
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __repr__(self) -> str:
        """Return all of it, the photographs by their hash."""
        return f"KnownPerson({self.key}, {len(self.surface.mesh.faces)} faces, {dict(self.tags)!r})"


def views_of(capture: Capture, bundles: int) -> list[View]:
    """Return the examples of a capture; the tag `client` names its studio."""
    scene, tags = scene_of(capture), {"client": capture.studio, "person": capture.name}
    return [View(scene, target, place, tags) for target in range(scene.n_views) for place in range(bundles)]
