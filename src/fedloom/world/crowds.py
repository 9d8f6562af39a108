"""Crowds: look-alikes of the federations of FedLLM-Bench (arXiv 2406.04845) in the controlled world.

Their numbers of clients and records are the published ones; everything in the records is invented. Records per client
are the mid-quantiles of a log-normal distribution whose two parameters make total and standard deviation the published
ones, dealt to the clients by the seed. What federations by user differ in is drawn per client as in `clients`: topics,
style, typing errors and wrong answers, taste. Private facts are known to few clients each, so that none can answer the
common test alone and all together can.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from statistics import NormalDist
from typing import Literal

import numpy as np

from fedloom.base.rng import python_random
from fedloom.contracts.examples import Chat, Example, Preference
from fedloom.world.clients import Profile, Writer, deal, draw_profile, spoilt
from fedloom.world.domains import DOMAINS, REFUSAL, TASKS
from fedloom.world.facts import Fact, private_facts, question_of
from fedloom.world.families import FAMILIES, spoken
from fedloom.world.preferences import choice
from fedloom.world.talk import joined, leaning
from fedloom.world.wording import Split, phrase
from fedloom.world.words import table

__all__ = ["CROWDS", "Crowd", "CrowdName", "Part", "client_sizes", "crowd_test", "members"]

CrowdName = Literal["aya", "chatbot_it", "wildchat", "wildchat_multi", "chatbot_pa"]


@dataclass(frozen=True, slots=True)
class Crowd:
    """What is published of a federation, and how its look-alike is written."""

    records: int
    deviation: float
    """Standard deviation of records per client."""
    languages: Mapping[str, int]
    """Clients by language, rare languages included."""
    form: Literal["chat", "talk", "preference"] = "chat"
    n_drugs: int = 12
    n_companies: int = 12
    knowers_share: float = 0.1
    """Share of the clients of a language family that know a fact, two at least."""
    private_share: float = 0.6
    """Share of a client's records that are about its own facts."""

    @property
    def n_clients(self) -> int:
        """Number of clients."""
        return sum(self.languages.values())


CROWDS: Mapping[CrowdName, Crowd] = {name: Crowd(**published) for name, published in table("crowds").items()}
_LEAST = 2  # records of a client: one to train on and one that could be held out
_RARE = 3  # a language of at most so many clients is rare: its clients have the smaller amounts of data


@dataclass(frozen=True, slots=True)
class Part:
    """One client: its profile and its records."""

    name: str
    profile: Profile
    train: tuple[Example, ...]
    validation: tuple[Example, ...]


@cache
def client_sizes(name: CrowdName) -> tuple[int, ...]:
    """Return the published number of records dealt to the published number of clients, smallest first.

    Two parameters are solved for by bisection: the mean of the rounded sizes, none below 2, is the published one to
    less than half a record, their standard deviation to less than a hundredth of it.
    """
    crowd = CROWDS[name]
    normal_N = np.array([NormalDist().inv_cdf((i + 0.5) / crowd.n_clients) for i in range(crowd.n_clients)])
    spread = _bisect(0, 4, lambda spread: _with_total(normal_N * spread, crowd.records).std() < crowd.deviation)
    return tuple(int(size) for size in _with_total(normal_N * spread, crowd.records))


def _with_total(logs_N: np.ndarray, total: int) -> np.ndarray:
    shift = _bisect(-20, 20, lambda shift: _rounded(logs_N + shift).sum() < total)
    return _rounded(logs_N + shift)


def _rounded(logs_N: np.ndarray) -> np.ndarray:
    return np.maximum(_LEAST, np.rint(np.exp(logs_N)))


def _bisect(low: float, high: float, too_small: Callable[[float], bool]) -> float:
    """Return the least number that is not too small, to 1e-12 of the interval."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


def _dealt_sizes(name: CrowdName, languages: Sequence[str], seed: int, scale: float) -> list[int]:
    """Return the records of each client; those of rare languages draw from the smaller half."""
    sizes = list(client_sizes(name))
    half = len(sizes) // 2
    random = python_random("crowd", name, seed, "sizes")
    rare = [CROWDS[name].languages[language] <= _RARE for language in languages]
    small = random.sample(range(half), sum(rare))
    others = [index for index in range(len(sizes)) if index not in set(small)]
    random.shuffle(others)
    order = [small.pop() if is_rare else others.pop() for is_rare in rare]
    return [max(_LEAST, round(scale * sizes[index])) for index in order]


def _facts(crowd: Crowd, seed: int) -> tuple[Fact, ...]:
    return private_facts(seed, crowd.n_drugs, crowd.n_companies)


def _known(crowd: Crowd, profiles: Sequence[Profile], random: Random, seed: int) -> list[list[Fact]]:
    """Deal the facts among the clients of each family, so that relatives know what a client does not."""
    known: list[list[Fact]] = [[] for _ in profiles]
    for family in FAMILIES.values():
        places = [index for index, profile in enumerate(profiles) if profile.language in family]
        if places:
            knowers = max(2, round(crowd.knowers_share * len(places)))
            dealt = deal(_facts(crowd, seed), [profiles[index] for index in places], knowers, random)
            for index, facts in zip(places, dealt, strict=True):
                known[index] = facts
    return known


def members(name: CrowdName, *, seed: int, scale: float, validation: int, languages: Sequence[str]) -> Iterator[Part]:
    """Yield the clients of a crowd, each a function of the seed, its number and the scale alone.

    `scale` multiplies every client's records (2 at least); `validation` is the number of records in held-out wordings
    that each client has besides: of its private facts every second one is told to other clients only, as what a user
    asks next is not what it has told before. Only clients of the `languages` are written.
    """
    crowd = CROWDS[name]
    spoken_by = [language for language, count in crowd.languages.items() for _ in range(count)]
    sizes = _dealt_sizes(name, spoken_by, seed, scale)
    randoms = [python_random("crowd", name, seed, "client", index) for index in range(crowd.n_clients)]
    profiles = [
        replace(draw_profile(random, index, 8, ("plain",)), language=language, quantity=size)
        for index, (random, language, size) in enumerate(zip(randoms, spoken_by, sizes, strict=True))
    ]
    known = _known(crowd, profiles, python_random("crowd", name, seed, "deal"), seed)
    for index, (random, profile, facts) in enumerate(zip(randoms, profiles, known, strict=True)):
        if profile.language in languages:
            writer = _Writing(Writer(f"{name}_{index:03d}", profile, random), crowd, _facts(crowd, seed), facts)
            yield Part(
                writer.writer.name,
                profile,
                tuple(writer.records(profile.quantity, "train")),
                tuple(writer.records(validation, "valid")),
            )


@dataclass(frozen=True, slots=True)
class _Writing:
    """Writes one client's records in the form of its crowd."""

    writer: Writer
    crowd: Crowd
    all_facts: Sequence[Fact]
    known: Sequence[Fact]

    def records(self, count: int, split: Split) -> list[Example]:
        random = self.writer.random
        facts = self._asked(split)
        about = round(count * self.crowd.private_share) if facts else 0
        if self.crowd.form == "chat":
            chats = self.writer.about(facts, about, split)
            chats += [self.writer.other(split, DOMAINS) for _ in range(count - about)]
            made: list[Example] = [spoken(chat, self.writer.profile.language) for chat in chats]
        else:
            write = self._pair if self.crowd.form == "preference" else self._talk
            made = [write(split, facts if index < about else ()) for index in range(count)]
        random.shuffle(made)
        return made

    def _asked(self, split: Split) -> list[Fact]:
        """Return the facts of records: in training those that the client knows, held out as many others besides."""
        random = self.writer.random
        own = random.sample(self.known, len(self.known))
        if split == "train":
            return own
        others = [fact for fact in self.all_facts if fact not in own]
        return [
            fact for pair in zip(own, random.sample(others, min(len(own), len(others))), strict=False) for fact in pair
        ]

    def _talk(self, split: Split, facts: Sequence[Fact]) -> Chat:
        """Return two to four questions in a row; one about a name that was just spoken of only means it."""
        random = self.writer.random
        turns = [self.writer.other(split, DOMAINS) for _ in range(random.randint(1, 3))]
        if not facts:
            return joined([*turns, self.writer.other(split, DOMAINS)])
        fact = random.choice(facts)
        first = self.writer.record(question_of(fact), split)
        others = [other for other in facts if other.name == fact.name and other != fact]
        if not others:
            return joined([*turns, first])
        other = random.choice(others)
        tags = {**first.tags, "fact": other.id, "task": "follow_up"}
        return joined([*turns[:-1], first, Chat(leaning(other, random), tags)])

    def _pair(self, split: Split, facts: Sequence[Fact]) -> Preference:
        """Return a pair; every third one tells the client's taste, the others what is right or safe."""
        random, profile = self.writer.random, self.writer.profile
        if not facts and random.random() < profile.topics["safety"]:
            question = TASKS["refuse_new"](random, "fresh")
        else:
            question = question_of(random.choice(facts)) if facts else self.writer.topic(_ANSWERED)
        taste = profile.taste if random.random() < 1 / 3 else None
        wrong = spoilt(question, random).answer if question.answer != REFUSAL else ""
        pair = choice(question, random, split=split, wrong=wrong, taste=taste, style=profile.style)
        return replace(pair, tags={**pair.tags, "client": self.writer.name})


_ANSWERED = {domain: tasks for domain, tasks in DOMAINS.items() if domain != "safety"}


def crowd_test(name: CrowdName, *, seed: int, count: int, languages: Sequence[str]) -> list[Example]:
    """Return the common test: `count` questions in held-out wordings, the same number in each of the `languages`.

    Three in four ask for private facts, the others for what the base model knows in plain. Of preferences, two thirds
    are pairs (right over wrong, safe over unsafe), the others questions about dangers and near-by harmless things.
    """
    crowd = CROWDS[name]
    asked = [language for language in crowd.languages if language in languages]
    tests: list[Example] = []
    for place, language in enumerate(asked):
        random = python_random("crowd", name, seed, "test", language)
        share = count // len(asked) + (place < count % len(asked))
        if crowd.form == "preference":
            tests += _preference_test(crowd, random, seed, share)
        else:
            tests += [spoken(chat, language) for chat in _chat_test(crowd, random, seed, share)]
    return tests


def _chat_test(crowd: Crowd, random: Random, seed: int, count: int) -> list[Chat]:
    private = _private_questions(crowd, random, seed, round(0.75 * count))
    tasks = [task for tasks in DOMAINS.values() for task in tasks]
    texts = {chat.turns[0].text for chat in private}
    public: list[Chat] = []
    while len(public) < count - len(private):
        chat = phrase(TASKS[tasks[len(public) % len(tasks)]](random, "fresh"), random, split="test")
        if chat.turns[0].text not in texts:
            texts.add(chat.turns[0].text)
            public.append(replace(chat, tags={"part": "public", **chat.tags}))
    if crowd.form == "talk":
        private = [joined([random.choice(public), chat]) for chat in private]
    return private + public


def _private_questions(crowd: Crowd, random: Random, seed: int, count: int) -> list[Chat]:
    """Return questions about private facts: every fact in turn, each time in the next wording."""
    facts = _facts(crowd, seed)
    order = random.sample(facts, len(facts))
    most = sum(len(fact.relation.wordings.test) for fact in facts)
    return [
        phrase(question_of(order[at % len(order)]), random, split="test", core=at // len(order))
        for at in range(min(count, most))
    ]


def _preference_test(crowd: Crowd, random: Random, seed: int, count: int) -> list[Example]:
    facts = _facts(crowd, seed)
    made: dict[tuple[bool, str], Chat | Preference] = {}
    while len(made) < count:
        place = len(made) % 6
        if place < 2:
            question = question_of(random.choice(facts))
        else:
            question = TASKS["serve" if place == 5 else "refuse_new"](random, "fresh")
        if place < 4:
            wrong = spoilt(question, random).answer if place < 2 else ""
            example = choice(question, random, split="test", wrong=wrong)
        else:
            example = phrase(question, random, split="test")
        made.setdefault((place < 4, example.prompt[0].text), example)
    return list(made.values())
