"""What an owner allows: a TOML file of its own, strict. A key that is absent allows nothing.

    servers = ["3f1c..."]                 # fingerprints of servers' certificates
    bases = ["fedloom-embedded sha256:..."]
    rules = ["plain", "scaffold"]
    tasks = ["sft"]
    codecs = ["float32"]
    metrics = ["loss"]
    max_rounds = 50
    max_steps = 20
    max_batch = 32
    max_length = 1024
    max_bytes_up = 50_000_000
    max_change = 100.0
    min_clients_per_round = 3
    min_examples = 10
    versions = ["0.1"]
    secure_sum = "required"               # or "allowed"
    hours = "20-06"                       # by the node's clock, UTC

    [privacy]
    unit = "example"
    max_epsilon = 8.0
    max_noise_free = false

What is refused is told with the key that refuses it, what was found and what is allowed.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from fedloom.base import config
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Count, NonNegative, check_ranges, lookup
from fedloom.contracts.arrangement import Arrangement
from fedloom.network.frames import PROTOCOL
from fedloom.network.manifest import Manifest

__all__ = ["FORBIDDING", "Policy", "PrivacyPolicy", "minor", "open_now", "read_policy", "violations"]

FORBIDDING = """# What this node allows. A key that is absent allows nothing: this file forbids everything.
# servers = []                # fingerprints of servers' certificates, compared by telephone
# bases = []                  # hashes of base weights, as `fedloom node review` prints them
# rules = []                  # of federated algorithms
# tasks = []
# codecs = []
# metrics = []                # scores that may leave; none: no evaluation here
# max_rounds = 0
# max_steps = 0               # optimiser steps of a round
# max_batch = 0
# max_length = 0              # tokens of an example
# max_bytes_up = 0            # of a round and client
# max_change = 0.0            # norm of the change of what the server sends, from a round to the next one it asks for
# min_clients_per_round = 0
# min_examples = 0            # fewer are not trained on
# versions = []               # of fedloom, such as "0.1", that a server may run besides this node's own
# secure_sum = "required"     # or "allowed"
# split = false               # true: states and gradients of a split model may leave in every step (docs/split.md)
# hours = "00-24"             # of the day, UTC
# [privacy]
# unit = "example"            # whom noise has to protect: example, client_local, client_sum or client
# max_epsilon = 0.0           # over everything that was ever trained on a client's data here
# max_noise_free = false      # true: runs without noise are allowed
# seeded_noise = false        # true: noise may come from the run's seed, which the server knows: trials alone
"""


@dataclass(frozen=True, kw_only=True)
class PrivacyPolicy:
    """What of privacy an owner demands."""

    unit: Literal["example", "client", "client_local", "client_sum"] = "example"
    """Whom noise has to protect."""
    max_epsilon: NonNegative = 0.0
    """The most that may be spent of each client's data, over all runs."""
    max_noise_free: bool = False
    """Whether runs without noise are allowed."""
    seeded_noise: bool = False
    """Whether noise may come from the run's seed, which the server knows: for trials alone."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What an owner allows."""

    servers: tuple[str, ...] = ()
    """Fingerprints of servers' certificates."""
    bases: tuple[str, ...] = ()
    """Hashes of base weights."""
    rules: tuple[str, ...] = ()
    """Federated algorithms."""
    tasks: tuple[str, ...] = ()
    """What is learnt."""
    codecs: tuple[str, ...] = ()
    """How rows travel."""
    metrics: tuple[str, ...] = ()
    """Scores that may leave."""
    max_rounds: Count = 0
    """Rounds of a run."""
    max_steps: Count = 0
    """Optimiser steps of a round."""
    max_batch: Count = 0
    """Examples of a step."""
    max_length: Count = 0
    """Tokens of an example."""
    max_bytes_up: Count = 0
    """Bytes of a round and client."""
    max_change: NonNegative = 0.0
    """Norm of the change of what the server sends, from one round that asks this client to the next."""
    min_clients_per_round: Count = 2**31
    """Clients of a round at least."""
    min_examples: Count = 2**31
    """Examples of a client at least."""
    versions: tuple[str, ...] = ()
    """Versions of fedloom that a server may run besides the node's own."""
    secure_sum: Literal["required", "allowed"] = "required"
    """Whether rows may leave without it."""
    split: bool = False
    """Whether states and gradients may leave in every step, as protocol `split` has it: no noise covers them."""
    hours: str = ""
    """Hours of the day, UTC, in which jobs are taken."""
    privacy: PrivacyPolicy = field(default_factory=PrivacyPolicy)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.hours:
            _hours(self.hours)


def read_policy(path: Path) -> Policy:
    """Return the policy in a TOML file; an unknown key is refused."""
    return config.build(Policy, config.read_toml(path))


def violations(policy: Policy, manifest: Manifest, *, steps: int, bytes_up: int) -> list[str]:
    """Return what a policy does not allow of a run, a line each; `steps` and `bytes_up` are of a round and client."""
    return list(_violations(policy, manifest, steps, bytes_up))


def _violations(policy: Policy, manifest: Manifest, steps: int, bytes_up: int) -> Iterator[str]:
    settings, table = manifest.settings, manifest.table
    if manifest.protocol != PROTOCOL:
        yield f"protocol: the server's is {manifest.protocol}, this node's {PROTOCOL}; one of the two has to be updated"
    mine, theirs = minor(metadata.version("fedloom")), minor(table["fedloom"])
    if theirs not in {mine, *policy.versions}:
        yield f"versions: the server runs fedloom {theirs}, this node {mine}; {_allowed(policy.versions)}"
    named = {
        "bases": (policy.bases, table["base_id"]),
        "rules": (policy.rules, settings["rule"]["name"]),
        "tasks": (policy.tasks, settings["task"]["name"]),
        "codecs": (policy.codecs, settings["codec"]["name"]),
    }
    for key, (allowed, found) in named.items():
        if found not in allowed:
            yield f"{key}: found '{found}', {_allowed(allowed)}"
    local = settings["local"]
    most = {
        "max_rounds": (policy.max_rounds, settings["rounds"]),
        "max_steps": (policy.max_steps, steps),
        "max_batch": (policy.max_batch, local["batch"] * local["accumulation"]),
        "max_length": (policy.max_length, settings["task"].get("max_length", 0)),
        "max_bytes_up": (policy.max_bytes_up, bytes_up),
    }
    for key, (limit, found) in most.items():
        if found > limit:
            yield f"{key}: found {found:,}, allowed is at most {limit:,}"
    n_clients = settings["clients_per_round"] or len(manifest.clients)
    least = min(settings["min_clients"] or n_clients, n_clients)
    if least < policy.min_clients_per_round:
        yield f"min_clients_per_round: found {least}, allowed is at least {policy.min_clients_per_round}"
    if lookup(Arrangement, settings["protocol"]["name"]).splits and not policy.split:
        yield "split: found protocol 'split', whose server could reconstruct text from what leaves in every step"
    if policy.secure_sum == "required" and settings["aggregator"]["name"] != "secure_sum":
        yield f"secure_sum: found aggregator '{settings['aggregator']['name']}', required is 'secure_sum'"
    yield from _unprotected(policy.privacy, settings["privacy"])


def _unprotected(policy: PrivacyPolicy, privacy: Mapping[str, Any]) -> Iterator[str]:
    if privacy["name"] == "none":
        if not policy.max_noise_free:
            yield "privacy.max_noise_free: the run adds no noise, allowed are runs with noise"
        return
    found = privacy["unit"]
    if found != policy.unit:
        yield f"privacy.unit: found '{found}', allowed is '{policy.unit}'"
    if privacy.get("noise") != "system" and not policy.seeded_noise:
        yield f"privacy.noise: found '{privacy.get('noise')}', allowed is 'system': who knows a seed knows the noise"


def minor(version: str) -> str:
    """Return the first two numbers of a version.

    >>> minor("0.1.3")
    '0.1'
    """
    return ".".join(version.split(".")[:2])


def open_now(policy: Policy, now: dt.datetime) -> bool:
    """Return whether jobs are taken at this hour; without hours they never are."""
    if not policy.hours:
        return False
    first, last = _hours(policy.hours)
    hour = now.astimezone(dt.UTC).hour
    return first <= hour < last if first < last else hour >= first or hour < last


def _hours(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d\d)-(\d\d)", text)
    if match is None or not (int(match[1]) < 24 and 0 < int(match[2]) <= 24):
        raise ConfigError(f"hours: found '{text}', allowed is a span such as '20-06' or '00-24'.")
    return int(match[1]), int(match[2])


def _allowed(names: Sequence[str]) -> str:
    return f"allowed is {', '.join(names)}" if names else "nothing is allowed"
