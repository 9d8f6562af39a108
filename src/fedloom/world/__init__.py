"""The controlled world: a deterministic generator of a closed written world whose every fact is known."""

from fedloom.world.clients import Client, Profile
from fedloom.world.danger import DangerWorld, Families
from fedloom.world.domains import DOMAINS
from fedloom.world.facts import Fact
from fedloom.world.languages import LANGUAGES
from fedloom.world.preferences import answered
from fedloom.world.world import TESTS, World

__all__ = [
    "DOMAINS",
    "LANGUAGES",
    "TESTS",
    "Client",
    "DangerWorld",
    "Fact",
    "Families",
    "Profile",
    "World",
    "answered",
]
