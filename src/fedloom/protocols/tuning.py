"""The record of a tuning run: what a run file may say, with every default.

`federated`, `local_only` and `centralised` share it, so that a baseline differs from its federated run in one line.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeVar

from fedloom import config
from fedloom.contracts import (
    Aggregator,
    Engine,
    Metric,
    ModelFamily,
    Partition,
    Rule,
    ServerOpt,
    Source,
    Task,
    Weighting,
)
from fedloom.errors import ConfigError
from fedloom.plugin import AtLeast, Family, Range, check_ranges, lookup
from fedloom.settings import LocalSettings

__all__ = ["EvaluationSettings", "TuningRun", "read_run"]

Count = Annotated[int, Range(0, 2**63 - 1)]
Holdout = Annotated[float, Range(0, 0.9)]
FamilyType = TypeVar("FamilyType", bound=Family)


def _default(family: type[FamilyType], name: str) -> Callable[[], FamilyType]:
    return lambda: lookup(family, name)()


def _default_metrics() -> tuple[Metric, ...]:
    return (lookup(Metric, "exact_match")(),)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is measured on held-out examples, and when."""

    every: Count = 0
    """Rounds between evaluations; 0 evaluates before and after training only."""
    metrics: tuple[Metric, ...] = field(default_factory=_default_metrics)
    """Scores of written answers; an empty list measures the loss alone and writes nothing."""
    max_new_tokens: AtLeast = 16
    holdout: Holdout = 0.1
    """Share of each client's examples held out where the data have no validation split."""
    limit: Count = 0
    """Test examples used, the first ones; 0 uses all."""
    samples: Count = 8
    """Questions and answers written to `samples/` per evaluation."""
    resamples: AtLeast = 2000
    """Resamples of the bootstrap intervals."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class TuningRun:
    """One tuning of a language model over the private data of many clients."""

    protocol: Literal["federated", "local_only", "centralised"] = "federated"
    seed: Count = 0
    rounds: AtLeast = 20
    clients: Count = 0
    """Number of clients; 0 takes as many as the data name."""
    clients_per_round: Count = 0
    """Clients sampled in each round; 0 takes all."""
    weighting: Weighting = "samples"
    """What a client's row counts by in the mean."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: AtLeast = 1
    """Threads of the numerical library on the CPU; more help wide models on idle cores and harm on shared ones."""
    checkpoint_every: AtLeast = 1
    """Rounds between checkpoints."""
    train: str | None = None
    """Pattern of the parameter names that are trained; left out: the adapter, or everything if there is none."""
    share: str = ".*"
    """Pattern of the trained names that are shared; the others stay private to each client."""
    plugins: tuple[str, ...] = ()
    """Modules to import for plug-ins that fedloom does not ship."""

    model: ModelFamily = field(default_factory=_default(ModelFamily, "causal_lm"))
    task: Task = field(default_factory=_default(Task, "sft"))
    data: Source = field(default_factory=_default(Source, "world"))
    partition: Partition = field(default_factory=_default(Partition, "by_key"))
    local: LocalSettings = field(default_factory=LocalSettings)
    rule: Rule = field(default_factory=_default(Rule, "plain"))
    server_opt: ServerOpt = field(default_factory=_default(ServerOpt, "sgd"))
    aggregator: Aggregator = field(default_factory=_default(Aggregator, "mean"))
    engine: Engine = field(default_factory=_default(Engine, "sequential"))
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        check_ranges(self)
        try:
            re.compile(self.share)
        except re.error as error:
            raise ConfigError(f"share: '{self.share}' is no regular expression: {error}.") from error
        if self.clients and self.clients_per_round > self.clients:
            raise ConfigError(
                f"clients_per_round: found {self.clients_per_round}, allowed is at most clients = {self.clients}."
            )

    def as_baseline(self) -> "TuningRun":
        """Return the run with the rule and server step that change nothing; baselines have nobody to agree with."""
        return replace(self, rule=lookup(Rule, "plain")(), server_opt=lookup(ServerOpt, "sgd")())

    @property
    def shared_pattern(self) -> str:
        """The pattern of shared names; in a baseline nothing is anybody else's."""
        return self.share if self.protocol == "federated" else ".*"


def read_run(table: Mapping[str, Any]) -> TuningRun:
    """Return the run that a table describes; third-party plug-ins it names are imported first."""
    modules = table.get("plugins", ())
    if not isinstance(modules, list | tuple) or not all(isinstance(module, str) for module in modules):
        raise ConfigError(f"plugins: found {modules!r}, allowed is a list of module names in quotes.")
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigError(f"plugins: '{module}' cannot be imported: {error}.") from error
    return config.build(TuningRun, table)
