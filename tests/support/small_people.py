"""A small person who never was, and what the steps make of them in a moment."""

import shutil

import torch

from fedloom.people.adapter.models.person_field import PersonField
from fedloom.people.bodies.procedural import Procedural
from fedloom.people.dataset import photograph
from fedloom.people.fine_tune import FineTuning
from fedloom.people.fit import Fitting
from fedloom.people.noise import ParserNoise
from fedloom.people.person_folder import PersonFolder
from fedloom.people.scgs import Separation
from fedloom.people.steps import Reconstructing, reconstruct, separate_layers
from fedloom.people.studios import Studio
from fedloom.people.wearing import fit_body

BODY, CELLS = Procedural(), Reconstructing(cell_m=0.04)
TUNING, FITTING = FineTuning(steps=1), Fitting(single=10, layered=10)
STUDIO = Studio(
    name="small",
    views=5,
    height=64,
    width=64,
    tops=("tee",),
    bottoms=("trousers",),
    noise=ParserNoise(jitter_px=0, rate=0, p_fail=0),
)


def hull():
    """The field that has learnt nothing: the visual hull's surface."""
    return PersonField().build(seed=0, device=torch.device("cpu")).field


def capture_at(folder):
    """Write the capture of a person in tee and trousers, with the truth beside it."""
    photograph(folder, BODY.load(), STUDIO, "small", 0, "small", 0)
    return folder


def quiet(text):
    """Say nothing."""


def surface_at(capture, folder, say=quiet):
    return reconstruct(capture, hull(), "hull", folder, CELLS, say)


def layers_at(person, say=quiet):
    separate_layers(person, Separation(), TUNING, say)


def body_at(person, say=quiet):
    fit_body(person, BODY, FITTING, say)


def whole_at(capture, folder):
    """Make all but swaps."""
    person = surface_at(capture, folder)
    layers_at(person)
    body_at(person)
    return person


def copied(person, folder):
    """A person's folder elsewhere."""
    shutil.copytree(person.path, folder)
    return PersonFolder(folder)
