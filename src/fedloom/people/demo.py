"""All steps on two people who never were: photographs, surfaces, layers, bodies, a swap, meshes, a page."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from fedloom.people.adapter.models.person_field import PersonField
from fedloom.people.bodies.procedural import Procedural
from fedloom.people.dataset import is_photographed, photograph
from fedloom.people.export import write_layers
from fedloom.people.fine_tune import FineTuning
from fedloom.people.fit import Fitting
from fedloom.people.noise import ParserNoise
from fedloom.people.page import layers_of, write_page
from fedloom.people.person_folder import PersonFolder
from fedloom.people.scgs import Separation
from fedloom.people.steps import Reconstructing, reconstruct, separate_layers
from fedloom.people.studios import Studio
from fedloom.people.wearing import fit_body, swap

__all__ = ["demo"]

_STUDIOS = {
    "giver": Studio(name="giver", tops=("long_sleeve",), bottoms=("trousers",), textures=("checks", "stripes")),
    "taker": Studio(name="taker", tops=("tee",), bottoms=("shorts",), textures=("plain", "stripes"), start_deg=20.0),
}
_NOISE = ParserNoise(rate=0.1, p_fail=0.05, calib=0.8)


def demo(out: Path, field: str, views: int, seed: int, say: Callable[[str], None]) -> Path:
    """Return the page of a person who wears another's clothes; a stopped call is gone on with."""
    family = PersonField(path=field)
    model, people = family.build(seed=0, device=torch.device("cpu")), dict[str, PersonFolder]()
    for name, studio in _STUDIOS.items():
        place = out / "captures" / name
        if not is_photographed(place):
            photograph(place, Procedural().load(), replace(studio, views=views, noise=_NOISE), "demo", seed, name, 0)
        say(f"{name}: {views} photographs")
        person = reconstruct(place, model.field, family.identity(), out / name, Reconstructing(), say)
        separate_layers(person, Separation(), FineTuning(), say)
        fit_body(person, Procedural(), Fitting(), say)
        people[name] = person
    for pose in ("own", "raised"):
        swap(people["giver"], people["taker"], Procedural(), ("upper",), "bound", pose, say)
    for person in people.values():
        write_layers(layers_of(person), person.path / "meshes")
    write_page(people["giver"])
    return write_page(people["taker"])
