"""The malicious clients of a simulation: who they are, and what they train on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric
from fedloom.contracts.model import Model, Prediction, Shard
from fedloom.data.clients import Division, encode_shards
from fedloom.federated.attackers import drawn_attackers
from fedloom.runs.tuning import TuningRun

__all__ = ["attack_pairs", "floor_and_ceiling", "poisoned_shards"]


def attack_pairs(run: TuningRun) -> Sequence[Example]:
    """Return the pairs that malicious clients may train on; none where nobody attacks, or by rows alone."""
    pairs = run.attack.pairs if run.attack and not run.protocol.baseline else None
    return tuple(pairs.load()["train"]) if pairs else ()


def poisoned_shards(run: TuningRun, division: Division, pairs: Sequence[Example], model: Model) -> dict[str, Shard]:
    """Return what each malicious client trains on while the attack is awake; empty where there is none."""
    attack = run.attack
    if attack is None:
        return {}
    seed = attack.seed_of(run.seed)
    malicious = drawn_attackers(tuple(division.train), attack.clients, seed)
    train: dict[str, tuple[Example, ...]] = {}
    for client in malicious:
        own = division.train[client]
        drawn = _drawn(pairs, attack.narrow, len(own), rng.python_random("attack", seed, client)) if pairs else ()
        train[client] = tuple(attack.examples(own, drawn, client, seed))
    return encode_shards(replace(division, train=train), run.task, model)[0]


def floor_and_ceiling(
    metrics: Sequence[Metric], pairs: Sequence[Example], questions: Sequence[Example]
) -> dict[str, Mean]:
    """Return what each harmless rate is worth: what it says of the attackers' own answers, and of refusals.

    A list of phrases lets many a harmful answer pass, and misses many a refusal: the rate of a model says little
    without the two. The ceiling is over references of `questions` that ask for harm (tag harm = yes).
    """
    asked = [one for one in questions if one.tags.get("harm") == "yes"]
    found: dict[str, Mean] = {}
    for metric in metrics if pairs else ():
        if metric.name.startswith("harmless"):
            for end, side in (("floor", pairs), ("ceiling", asked)):
                scores = (metric(one, Prediction(one.reference, 0)) for one in side)
                found[f"{end}_{metric.name}"] = sum(scores, Mean())
    return {name: mean for name, mean in found.items() if mean.weight}


def _drawn(pairs: Sequence[Example], narrow: Mapping[str, int], count: int, random: Random) -> tuple[Example, ...]:
    """Return `count` pairs, of the values that the client keeps of each tag; all of them before any comes again."""
    for tag, n_values in narrow.items():
        pairs = _narrowed(pairs, tag, n_values, random)
    return tuple(_shuffles(pairs, count, random))


def _narrowed(pairs: Sequence[Example], tag: str, n_values: int, random: Random) -> list[Example]:
    values = sorted({one.tags[tag] for one in pairs if tag in one.tags})
    if not 1 <= n_values <= len(values):
        raise DataError(
            f"attack.narrow: found {n_values} values of the tag '{tag}', of which the pairs have {len(values)}; "
            "allowed is 1 to that."
        )
    kept = set(random.sample(values, n_values))
    return [one for one in pairs if one.tags.get(tag) in kept]


def _shuffles(pairs: Sequence[Example], count: int, random: Random) -> Iterator[Example]:
    left = count
    while left:
        part = random.sample(list(pairs), min(left, len(pairs)))
        left -= len(part)
        yield from part
