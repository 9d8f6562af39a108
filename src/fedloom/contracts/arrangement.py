"""The contract of arrangements: which owners of data train one model together, and which for themselves."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fedloom.base.plugin import Family
from fedloom.contracts.federated import Engine
from fedloom.contracts.model import Model, Shard

__all__ = ["Arrangement", "Group"]


@dataclass(frozen=True)
class Group:
    """Owners whose models are trained beside each other, from the initial parameters."""

    name: str
    """What tells it from the run's other groups; "" if there is one."""
    shards: Mapping[str, Shard]
    per_round: int
    """Owners sampled in a round; 0: all."""
    steps: int
    """Steps of each in a round."""
    owner: str = ""
    """Whose the trained model is; "" for one that all clients share, or for one each."""


class Arrangement(Family):
    """Who trains with whom: a run is one training after another, and arrangements differ in which ones."""

    folder = "fedloom.runs.arrangements"
    baseline: ClassVar[bool] = False
    """Whether owners send nothing to each other, so that all that only matters between parties is left out."""
    accounted: ClassVar[bool] = False
    """Whether what is spent of privacy can be stated: one training, whose clients are the run's."""
    pooled: ClassVar[bool] = False
    """Whether all data lie in one place."""
    splits: ClassVar[bool] = False
    """Whether clients and server compute each step together, the server's own part of the model between theirs."""

    def label(self) -> str:
        """Return what tables call a run by beside its method; "" where the method says all."""
        return ""

    def shared(self, pattern: str) -> str:
        """Return the pattern of the names that clients share, from the one that the run file has."""
        return pattern

    def middle(self, model: Model) -> frozenset[str]:
        """Return the names of the trained parameters that the server trains itself, step by step; else none."""
        return frozenset()

    def carried_by(self, engine: Engine) -> Engine:
        """Return what carries jobs to clients: the run's engine, or one of this arrangement's own."""
        return engine

    @abstractmethod
    def groups(
        self, shards: Mapping[str, Shard], card: Mapping[str, Any], *, per_round: int, steps: int
    ) -> Sequence[Group]:
        """Return who trains beside whom; `card` is that of the partition, the others are those of the run file."""
