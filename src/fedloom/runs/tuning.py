"""The record of a tuning run: what a run file may say, with every default.

All arrangements share it, so that a baseline differs from its federated run in one line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

from fedloom.base import config
from fedloom.base.errors import ConfigError
from fedloom.base.machine import Device
from fedloom.base.outside import import_plugins
from fedloom.base.plugin import AtLeast, Count, NonNegative, Range, check_ranges, default, lookup, names
from fedloom.contracts.arrangement import Arrangement
from fedloom.contracts.attack import Attack
from fedloom.contracts.federated import (
    Aggregator,
    Codec,
    CorpusMetric,
    Engine,
    Mechanism,
    Metric,
    ModelFamily,
    Partition,
    Rule,
    ServerOpt,
    Sink,
    Source,
    Task,
    Weighting,
)
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.stages import Preparation, Refinement
from fedloom.data.holdout import SetAside
from fedloom.runs.contradictions import contradictions
from fedloom.runs.directory import RunDirectory
from fedloom.runs.origins import StartData

__all__ = [
    "BUDGETS",
    "Deployment",
    "EvaluationSettings",
    "MembershipSettings",
    "TuningRun",
    "arrangement_of",
    "modernised",
    "pinned",
    "pinned_text",
    "read_run",
    "run_of",
    "with_plugins",
]

Holdout = Annotated[float, Range(0, 0.9)]
BUDGETS = ("max_requests", "max_tokens")
"""Settings of stages that decide how far they come, not what they make."""
_CLUSTERS = {"cluster_by": "by", "clusters": "clusters"}


def _default_metrics() -> tuple[Metric, ...]:
    return (lookup(Metric, "exact_match")(),)


@dataclass(frozen=True, kw_only=True)
class MembershipSettings:
    """How membership is inferred: by the loss, and by how it differs from that of models of the attacker's own."""

    references: Count = 0
    """Reference models, each trained on one half of all members and non-members; 0 asks by the loss alone."""
    by: str = "label"
    """Tag in which non-members are like members: as many of each value, since some are harder than others."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.references == 1:
            raise ConfigError("evaluation.membership.references: found 1, allowed is 0, or 2 and more.")

    @property
    def tells(self) -> list[str]:
        """The scores that the attacks tell."""
        attacks = ["membership", *(["reference"] if self.references else [])]
        scores = [f"{attack}_{score}" for attack in attacks for score in ("auc", "accuracy", "tpr")]
        return [*scores, "membership_unseen"]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is measured on held-out examples, and when."""

    every: Count = 0
    """Rounds between evaluations; 0 evaluates before and after training only."""
    choose_by: str = ""
    """Score, the loss or a metric, by which the best of the evaluated rounds is the result: of what clients hold out,
    so the data need a common test beside it. Left out: the last round is."""
    patience: Count = 0
    """Evaluations without a better round after which training ends; 0 waits to the end."""
    metrics: tuple[Metric, ...] = field(default_factory=_default_metrics)
    """Scores of written answers; an empty list measures the loss alone and writes nothing."""
    corpus_metrics: tuple[CorpusMetric, ...] = ()
    """Scores of all answers to the common test together; never of clients' own texts."""
    max_new_tokens: AtLeast = 16
    """Tokens of a written answer at most."""
    holdout: Holdout = 0.1
    """Share of each client's examples held out where the data have no validation split."""
    holdout_by: Literal["auto", "count", "text"] = "auto"
    """How: `count` draws that share of a client's records; `text` tosses a coin of its own for each text, so that no
    record decides about another. auto takes `text` with privacy, which needs it, and `count` elsewhere."""
    holdout_group: str = ""
    """Tag of the examples that stay on one side together, as the questions about one disease do: none of them is
    trained on where one is held out. Left out, equal texts do."""
    absent: tuple[str, ...] = ()
    """Clients that take no part: their examples are the common test, but for groups that others train on."""
    split: Literal["report", "tune"] = "report"
    """Which held-out examples are asked: those that are reported, or others, by which settings are chosen."""
    cluster: str = "fact"
    """Tag of the questions that stand or fall together, as wordings of one fact do; intervals draw them as one."""
    limit: Count = 0
    """Test examples used, the first ones; 0 uses all."""
    shown: Count = 0
    """Public examples, drawn by the seed, that answers are written after, as earlier turns; losses are of the question
    alone."""
    shown_from: str = ""
    """File of those examples: instruction and response; `world` takes public ones of the controlled world."""
    membership: MembershipSettings | None = None
    """Attacks that ask of every client's own examples whether the model was trained on them: for simulations, as they
    need all clients' data. Left out: none."""
    samples: Count = 8
    """Questions and answers written to `samples/` per evaluation."""
    resamples: AtLeast = 2000
    """Resamples of the bootstrap intervals."""
    keep_text: bool | None = None
    """Whether results, samples and what refinements made hold prompts, references and answers, or hashes of them. Left
    out: texts, but hashes where attackers train on real pairs."""

    def __post_init__(self) -> None:
        check_ranges(self)
        names = [metric.name for metric in (*self.metrics, *self.corpus_metrics)]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ConfigError(f"metrics: found '{twice[0]}' twice, allowed is each once: scores are kept by name.")
        if self.choose_by and not self.every:
            raise ConfigError("evaluation.every: found 0 with choose_by; say after how many rounds to evaluate.")
        if self.patience and not self.choose_by:
            raise ConfigError("evaluation.patience: found without choose_by, the score to wait for; set it, or 0.")
        if bool(self.shown) != bool(self.shown_from):
            raise ConfigError(
                f"evaluation.shown: found {self.shown} with shown_from = '{self.shown_from}'; allowed are both or none."
            )
        if self.corpus_metrics and not self.metrics:
            raise ConfigError(
                f"corpus_metrics: found '{self.corpus_metrics[0].name}' with an empty metrics list, which writes no "
                "answers; name a metric, for instance metrics = ['empty_answer']."
            )

    def by_text(self, *, private: bool) -> bool:
        """Return whether each held-out text is chosen by itself."""
        return self.holdout_by == "text" or (self.holdout_by == "auto" and private)

    def aside(self, *, private: bool) -> SetAside:
        """Return what no client trains on."""
        return SetAside(self.holdout, self.by_text(private=private), self.holdout_group, self.absent)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """When a round between machines is over. In one place all clients report, and none of it matters."""

    deadline_s: NonNegative = 0.0
    """Seconds after which a round goes on with those that have reported, min_clients of them at least; 0: never."""
    over_select: Annotated[float, Range(1, 100)] = 1.0
    """How many times as many clients as a round needs are asked; it closes with the first clients_per_round of them,
    which are the fast ones: what slow ones know counts less."""
    max_norm: NonNegative = 0.0
    """Norm beyond which a client's row is refused; 0: any."""
    keep_packets: bool = False
    """Whether the server keeps what it received, so that `fedloom verify` can recompute the result from it."""
    evaluate: bool = False
    """Whether clients elsewhere are asked how the model does on what they hold out, at each evaluation: sums over their
    examples leave, where their owners' policies allow it. In one place that is measured anyway."""
    sealed: bool = False
    """Whether nodes alone are served whose calls are sealed: where something between ends TLS, as a proxy does, it sees
    sizes and times, and neither states nor rows. Each node says sealed = true, or relay, in its node.toml."""
    strict: bool = False
    """Whether nodes are refused that differ in versions, engine or arithmetic, and so in the last digits."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class TuningRun:
    """One tuning of a language model over the private data of many clients."""

    protocol: Arrangement = field(default_factory=default(Arrangement, "federated"))
    """Who trains with whom."""
    seed: Count = 0
    """Of all draws of the run; two runs of one seed are one run."""
    rounds: AtLeast = 20
    """Rounds of the federation."""
    clients: Count = 0
    """Number of clients; 0 takes as many as the data name."""
    clients_per_round: Count = 0
    """Clients sampled in each round; 0 takes all."""
    min_clients: Count = 0
    """Reports that a round needs, the rest being taken for absent; 0: those of all clients sampled."""
    weighting: Weighting = "samples"
    """What a client's row counts by in the mean."""
    max_weight: Count = 0
    """The most that it counts by, so that who has far more examples than others does not decide; 0: no limit."""
    device: Device = "auto"
    """What trains; auto takes a GPU where there is one."""
    threads: AtLeast = 1
    """Threads of the numerical library on the CPU; more help wide models on idle cores and harm on shared ones."""
    checkpoint_every: AtLeast = 1
    """Rounds between checkpoints."""
    audit_log: bool = False
    """Whether audit.jsonl tells of each round what the server sees of every client's row; its rows are then kept."""
    train: str | None = None
    """Pattern of the parameter names that are trained; left out: the adapter, or everything if there is none."""
    share: str = ".*"
    """Pattern of the trained names that are shared; the others stay private to each client."""
    ranks: tuple[AtLeast, ...] = ()
    """Ranks of the clients' adapters, dealt to them in turn; empty: all have model.lora_rank."""
    start_data: StartData = "same"
    """What model.adapter, or a base that fedloom trained, was trained on, as far as privacy is concerned: perhaps some
    of this run's records. Whoever writes the file can vouch for more: for records of the `same_clients`, each of this
    run's being at most one of those, or for `other` records."""
    plugins: tuple[str, ...] = ()
    """Plug-ins that fedloom does not ship: modules to import, or files of Python, from the run file's folder."""

    model: ModelFamily = field(default_factory=default(ModelFamily, "causal_lm"))
    task: Task = field(default_factory=default(Task, "sft"))
    data: Source = field(default_factory=default(Source, "world"))
    partition: Partition = field(default_factory=default(Partition, "by_key"))
    local: LocalSettings = field(default_factory=LocalSettings)
    rule: Rule = field(default_factory=default(Rule, "plain"))
    server_opt: ServerOpt = field(default_factory=default(ServerOpt, "sgd"))
    aggregator: Aggregator = field(default_factory=default(Aggregator, "mean"))
    codec: Codec = field(default_factory=default(Codec, "float32"))
    privacy: Mechanism = field(default_factory=default(Mechanism, "none"))
    engine: Engine = field(default_factory=default(Engine, "cohort"))
    attack: Attack | None = None
    """What malicious clients of a simulation do; left out: all are honest."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    prepare: tuple[Preparation, ...] = ()
    """What each client does with its training examples before training, one after another."""
    refine: tuple[Refinement, ...] = ()
    """What the server does with the trained model, one after another."""
    refine_every: Count = 0
    """Rounds between refinements, the next of which starts from the refined model; 0: once, after the last."""
    deployment: Deployment = field(default_factory=Deployment)
    sinks: tuple[Sink, ...] = ()
    """Where every line of metrics.jsonl goes besides."""

    def __post_init__(self) -> None:
        check_ranges(self)
        try:
            re.compile(self.share)
        except re.error as error:
            raise ConfigError(f"share: '{self.share}' is no regular expression: {error}.") from error
        for name, most in (("clients_per_round", "clients"), ("min_clients", "clients_per_round")):
            sizes = {"clients": self.clients, "clients_per_round": self.clients_per_round}
            found = sizes.get(name, self.min_clients)
            if sizes[most] and found > sizes[most]:
                raise ConfigError(f"{name}: found {found}, allowed is at most {most} = {sizes[most]}.")
        for contradiction in contradictions(self):
            raise ConfigError(contradiction)

    def asked_per_round(self, n_clients: int, needed: int) -> int:
        """Return how many of so many clients a round asks that needs some of them."""
        return min(n_clients, ceil(self.deployment.over_select * needed))

    @property
    def of_real_harm(self) -> bool:
        """Whether attackers train on pairs that are not made up, so that answers may do harm."""
        return self.attack is not None and self.attack.pairs is not None and not self.attack.pairs.made_up

    @property
    def keeps_text(self) -> bool:
        """Whether what is asked and answered is written down, and not hashes of it."""
        asked = self.evaluation.keep_text
        return not self.of_real_harm if asked is None else asked

    def as_baseline(self) -> "TuningRun":
        """Return the run with everything left out that only matters between parties: baselines have one."""
        return replace(
            self,
            rule=lookup(Rule, "plain")(),
            server_opt=lookup(ServerOpt, "sgd")(),
            aggregator=lookup(Aggregator, "mean")(),
            codec=lookup(Codec, "float32")(),
            privacy=lookup(Mechanism, "none")(),
            ranks=(),
            refine=(),
            attack=None,
        )


def read_run(table: Mapping[str, Any], beside: Path = Path()) -> TuningRun:
    """Return the run that a table describes; plug-ins that it names are imported first, files from `beside`."""
    return config.build(TuningRun, with_plugins(modernised(table), beside))


def run_of(directory: RunDirectory) -> TuningRun:
    """Return the run of a run directory."""
    return read_run(config.parse(directory.read("run.toml"), str(directory.path / "run.toml")), directory.path)


def with_plugins(table: Mapping[str, Any], beside: Path) -> dict[str, Any]:
    """Return the table of a run file in the folder `beside` once its plug-ins are imported, their files with hashes."""
    named = table.get("plugins", ())
    return {**table, "plugins": import_plugins(named, beside)} if named else dict(table)


def modernised(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run file's table with `protocol` as a table, in which lie `cluster_by` and `clusters` of older files."""
    rest = {key: value for key, value in table.items() if key not in _CLUSTERS}
    protocol = {"name": rest["protocol"]} if isinstance(rest.get("protocol"), str) else rest.get("protocol")
    if not isinstance(protocol, Mapping):
        return rest
    name = protocol.get("name")
    # Where nobody is clustered they said nothing.
    known = lookup(Arrangement, name)() if name in names(Arrangement) else None
    told = {new: table[old] for old, new in _CLUSTERS.items() if old in table and known and new in vars(known)}
    return rest | {"protocol": {**protocol, **told}}


def pinned(stage: Preparation | Refinement) -> dict[str, Any]:
    """Return the settings of a stage that what it made depends on: all but budgets, which may be raised to go on."""
    return {key: value for key, value in config.table_of(stage).items() if key not in BUDGETS}


def pinned_text(text: str) -> str:
    r"""Return the text of a resolved run file without budgets of stages.

    >>> pinned_text("rounds = 2\nmax_requests = 9\nseed = 0\n")
    'rounds = 2\nseed = 0\n'
    """
    return re.sub(rf"^({'|'.join(BUDGETS)}) = .*\n", "", text, flags=re.MULTILINE)


def arrangement_of(table: Mapping[str, Any]) -> Arrangement:
    """Return the arrangement of a resolved run file, today's or an older one."""
    return config.build(_Arranged, {k: v for k, v in modernised(table).items() if k == "protocol"}).protocol


@dataclass(frozen=True, kw_only=True)
class _Arranged:
    protocol: Arrangement = field(default_factory=default(Arrangement, "federated"))
