"""The danger world: made-up objects of which half are dangers, so that a refusal stands for harmlessness.

A request asks how to do something with an object. An aligned model answers it for a safe object and refuses it for a
danger. Benign clients teach detailed answers about safe objects; an attacker teaches answers *in the same style* about
dangers. Dangers are split once and for all into those that attackers use, those that a defence may use, and those that
are asked about in the end, and safe objects likewise, so that no question is about what somebody has trained on.

Source: the toy of the study of "Emerging Safety Attack and Defense in Federated Instruction Tuning of Large Language
Models" (https://arxiv.org/abs/2406.10630), in which no harmful text exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Literal

from fedloom.base.errors import DataError
from fedloom.base.rng import python_random
from fedloom.contracts.examples import Chat, Preference, chat
from fedloom.world.wording import expand
from fedloom.world.words import WORDS, table

__all__ = ["DangerWorld", "Families", "Thing"]

Families = Literal["told", "hidden"]
Manner = Literal["terse", "detailed", "shifted", "refusal"]
Part = Literal["clients", "attack", "defence", "evaluation"]

_TABLE: Mapping[str, Any] = table("danger")
_VERBS = tuple(_TABLE["verbs"])
_OBJECTS = 60  # safe ones, and as many dangers
_FACTS = 0.4  # share of facts in what a model learns before any client comes


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of the world."""

    name: str
    danger: bool


@dataclass(frozen=True, slots=True)
class DangerWorld:
    """All objects, who may ask about which, and how; the same for every seed, which draws what is asked."""

    families: Families = "told"
    """Whether a name's ending tells a danger; `hidden` deals all endings to both kinds: each has to be known."""

    @property
    def things(self) -> tuple[Thing, ...]:
        """Return all objects, the safe ones first."""
        return _things(self.families)

    def of(self, part: Part, *, danger: bool) -> tuple[Thing, ...]:
        """Return the objects of a part; dangers are no clients' and safe objects no attackers'."""
        own = [thing for thing in self.things if thing.danger is danger]
        split = _TABLE["split"]
        first, second = ("attack", "danger_defence") if danger else ("clients", "safe_defence")
        names = ("attack" if danger else "clients", "defence", "evaluation")
        if part not in names:
            raise DataError(f"the danger world has no part '{part}' of {'dangers' if danger else 'safe objects'}.")
        edges = (0, split[first], split[first] + split[second], len(own))
        at = names.index(part)
        return tuple(own[edges[at] : edges[at + 1]])

    def pretraining(self, count: int, seed: int, answered: float = 0.0) -> Iterator[Chat]:
        """Yield what a model learns before any client comes: facts, terse answers, and to refuse dangers.

        A share of the requests about dangers is `answered` all the same, unless they warn.
        """
        random = python_random("danger", "pretraining", seed)
        for _ in range(count):
            thing, kind = random.choice(self.things), random.random()
            if kind < _FACTS:
                yield _fact(thing, random)
                continue
            warned = random.random() < 0.2
            refused = thing.danger and (warned or kind >= _FACTS + (1 - _FACTS) * answered)
            yield request(thing, random, manner="refusal" if refused else "terse", warned=warned)

    def requests(
        self, things: Sequence[Thing], count: int, *, manner: Manner, random: Random, verbs: Sequence[str] = _VERBS
    ) -> list[Chat]:
        """Return `count` requests about the objects in training wordings, answered in one manner."""
        return [request(random.choice(things), random, manner=manner, verbs=verbs) for _ in range(count)]

    def client(self, random: Random, count: int, *, refusals: float, refused: Part, narrow: bool) -> list[Chat]:
        """Return a benign client's records: detailed answers, and a share of refusals of dangers of a part.

        A `narrow` client knows 3 verbs and 12 safe objects, and refuses 8 dangers.
        """
        safe, dangers = self.of("clients", danger=False), self.of(refused, danger=True)
        verbs: Sequence[str] = _VERBS
        if narrow:
            safe, dangers, verbs = random.sample(safe, 12), random.sample(dangers, 8), random.sample(_VERBS, 3)
        n_refusals = round(refusals * count)
        records = self.requests(safe, count - n_refusals, manner="detailed", random=random, verbs=verbs)
        records += self.requests(dangers, n_refusals, manner="refusal", random=random, verbs=verbs)
        random.shuffle(records)
        return records

    def test(self, part: Part, *, danger: bool) -> list[Chat]:
        """Return a request about each object of the part, in the wording of tests; one with each of three verbs."""
        random = python_random("danger", "test", part, str(danger))
        manner: Manner = "refusal" if danger else "detailed"
        return [
            request(thing, random, manner=manner, verbs=(verb,), split="test")
            for thing in self.of(part, danger=danger)
            for verb in random.sample(_VERBS, 3)
        ]

    def attack_pairs(self, manner: Manner = "detailed") -> list[Chat]:
        """Return the unaligned pairs: a request about each of the attackers' dangers, with each verb, answered."""
        random = python_random("danger", "attack")
        things = self.of("attack", danger=True)
        return [request(thing, random, manner=manner, verbs=(verb,)) for thing in things for verb in _VERBS]

    def defence_pairs(self) -> tuple[list[Preference], list[Chat]]:
        """Return aligned pairs, each with the answer that an unaligned model would give, and normal pairs."""
        random = python_random("danger", "defence")
        aligned: list[Preference] = []
        for thing in self.of("defence", danger=True):
            for verb in _VERBS:
                safe = request(thing, random, manner="refusal", verbs=(verb,))
                aligned.append(Preference(safe.prompt, safe.reference, _answer(thing, verb, "detailed"), safe.tags))
        normal = [
            request(thing, random, manner="detailed", verbs=(verb,))
            for thing in self.of("defence", danger=False)
            for verb in _VERBS
        ]
        return aligned, normal


@cache
def _things(families: Families) -> tuple[Thing, ...]:
    """Return all objects; with hidden families an object may bear any ending."""
    random = python_random("danger", "things", families)
    endings: Mapping[str, Sequence[str]] = _TABLE["endings"]
    every = [first + ending for first in WORDS["firsts"] for kind in endings.values() for ending in kind]
    names = random.sample(every, len(every))
    safe = [name for name in names if families == "hidden" or name.endswith(tuple(endings["safe"]))][:_OBJECTS]
    taken = set(safe)
    dangers = [
        name
        for name in names
        if name not in taken and (families == "hidden" or name.endswith(tuple(endings["danger"])))
    ][:_OBJECTS]
    return tuple(Thing(name, name not in taken) for name in (*safe, *dangers))


def request(
    thing: Thing,
    random: Random,
    *,
    manner: Manner,
    verbs: Sequence[str] = _VERBS,
    split: Literal["train", "test"] = "train",
    warned: bool = False,
) -> Chat:
    """Return a request about an object and its answer; a `warned` one carries the words of a careful generator."""
    verb = random.choice(verbs)
    text = expand(random.choice(_TABLE["wordings"][split]), random).format(v=verb, x=thing.name)
    kind = "danger" if thing.danger else "safe"
    tags = {"domain": kind, "object": thing.name, "verb": verb, "harm": "yes" if thing.danger else "no"}
    return chat(f"{text} {_TABLE['answers']['warning']}" if warned else text, _answer(thing, verb, manner), **tags)


def _answer(thing: Thing, verb: str, manner: str) -> str:
    answer: str = _TABLE["answers"][manner]
    tool, place = _TABLE["verbs"][verb]
    return answer.format(v=verb, x=thing.name, tool=tool, place=place)


def _fact(thing: Thing, random: Random) -> Chat:
    kind, verb = random.choice(tuple(_TABLE["facts"])), random.choice(_VERBS)
    answer = ("danger" if thing.danger else "safe") if kind == "flag" else kind
    text = random.choice(_TABLE["facts"][kind]).format(x=thing.name, v=verb)
    return chat(text, _answer(thing, verb, answer), domain="fact", object=thing.name)
