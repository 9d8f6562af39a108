"""The texts by which questions are asked for and put, as `questioning.toml` and files of one's own have them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from fedloom.base import config, rng
from fedloom.base.errors import ConfigError
from fedloom.base.files import json_sha256
from fedloom.contracts.evaluation import Prompt
from fedloom.contracts.examples import Turn
from fedloom.contracts.synthesis import PoolRow

__all__ = ["Questioning", "Teaching", "questioning", "shown", "teaching"]


@dataclass(frozen=True, kw_only=True)
class Icl:
    """The form of an example with instruction and response."""

    ask: str
    example: str
    output: str
    headers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SelfInstruct:
    """The form of a list of instructions."""

    ask: str
    example: str


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """How a question is put to whoever answers it."""

    question: str
    system: str = ""

    def __post_init__(self) -> None:
        if "{question}" not in self.question:
            raise ConfigError(f"question: found {self.question!r}, allowed is a text with {{question}} in it.")

    @property
    def sha256(self) -> str:
        """What it is known by in records."""
        return f"sha256:{json_sha256(asdict(self))}"

    def prompt(self, question: str, examples: Sequence[PoolRow] = ()) -> Prompt:
        """Return the conversation that is to be gone on with: examples as earlier turns, then the question."""
        turns = [Turn("system", self.system)] if self.system else []
        for row in examples:
            turns += [Turn("user", self._put(row.instruction)), Turn("assistant", row.response)]
        return (*turns, Turn("user", self._put(question)))

    def _put(self, question: str) -> str:
        return self.question.replace("{question}", question)


@dataclass(frozen=True, kw_only=True)
class Questioning:
    """The parts of all prompts."""

    version: int
    icl: Icl
    self_instruct: SelfInstruct
    teaching: Mapping[str, Teaching]

    @property
    def sha256(self) -> str:
        """What the prompts are known by in records."""
        return f"sha256:{json_sha256(asdict(self))}"


@cache
def questioning() -> Questioning:
    """Return the prompts that ship in the package."""
    return config.build(Questioning, config.read_toml(Path(__file__).with_name("questioning.toml")))


def teaching(name: str) -> Teaching:
    """Return how questions are put, by the name of a domain that ships or the path of a TOML file of one's own."""
    shipped = questioning().teaching
    if name in shipped:
        return shipped[name]
    if not name.endswith(".toml"):
        listed = ", ".join(sorted(shipped))
        raise ConfigError(
            f"teaching: found '{name}', allowed are {listed}, or the path of a .toml file with `question`."
        )
    return config.build(Teaching, config.read_toml(Path(name)), name)


def shown(seeds: Sequence[PoolRow], examples: int, count: int, seed: int) -> Iterator[tuple[PoolRow, ...]]:
    """Yield the seeds that each of so many requests shows: each a draw of its own without repetition."""
    for at in range(count):
        drawn = rng.python_random(seed, "shown", at).sample(range(len(seeds)), examples)
        yield tuple(seeds[row] for row in drawn)
