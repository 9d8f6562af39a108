"""Clients: the users of the world, each with its own facts, topics, manner, quality, language and amount of data.

The seven diversities of a federation by user are fields of `Profile`: topics (1), style with its verbosity (2, 3),
quality as rates of typing errors and of wrong answers (4), language (5), quantity (6) and taste in answers (7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from fedloom.contracts.examples import Chat, Document, Preference
from fedloom.world.domains import DOMAINS, TASKS
from fedloom.world.facts import Fact, question_of
from fedloom.world.languages import translated
from fedloom.world.passages import note
from fedloom.world.preferences import Taste, preference
from fedloom.world.wording import STYLES, Question, Split, phrase

__all__ = ["Client", "Profile", "Writer", "deal", "draw_profile", "spoilt", "write_client"]

_TASTES: tuple[Taste, Taste] = ("short", "sentence")


@dataclass(frozen=True, slots=True)
class Profile:
    """What makes one client unlike another."""

    topics: Mapping[str, float]
    """Share of each domain in the records that are not about private facts."""
    style: str
    taste: Taste
    """Which of two right answers it prefers: `short` or `sentence`."""
    typo_rate: float
    wrong_rate: float
    language: str
    language_share: float
    """Share of its records, private facts excepted, that are in its language."""
    quantity: int
    """Number of training records."""


@dataclass(frozen=True, slots=True)
class Client:
    """One owner of private data."""

    name: str
    profile: Profile
    facts: tuple[Fact, ...]
    train: tuple[Chat, ...]
    validation: tuple[Chat, ...]
    test: tuple[Chat, ...]
    notes: tuple[Document, ...]
    """Raw private text that tells the same facts between planted details."""
    preferences: tuple[Preference, ...]


def draw_profile(random: Random, index: int, records: int, languages: Sequence[str]) -> Profile:
    """Draw what makes the client of that index unlike another; `records` is the median number of its records."""
    weights = {domain: random.gammavariate(0.5, 1.0) + 1e-3 for domain in DOMAINS}
    total = sum(weights.values())
    language = languages[(index // 4) % len(languages)] if index % 4 == 3 else languages[0]
    return Profile(
        topics={domain: weight / total for domain, weight in weights.items()},
        style=tuple(STYLES)[(index + random.randint(0, 1)) % len(STYLES)],
        taste=_TASTES[random.randrange(2)],
        typo_rate=random.choice((0.0, 0.0, 0.05, 0.2)),
        wrong_rate=random.choice((0.0, 0.0, 0.0, 0.05, 0.15)),
        language=language,
        language_share=0.0 if language == "plain" else 0.5,
        quantity=max(8, round(records * random.lognormvariate(0.0, 0.4))),
    )


def deal(facts: Sequence[Fact], profiles: Sequence[Profile], knowers: int, random: Random) -> list[list[Fact]]:
    """Deal each fact to `knowers` clients: those with few facts so far and a liking for its domain come first."""
    dealt: list[list[Fact]] = [[] for _ in profiles]
    for fact in random.sample(facts, len(facts)):
        eagerness = [
            len(known) - 3 * profile.topics[fact.relation.domain] + random.uniform(0, 4)
            for known, profile in zip(dealt, profiles, strict=True)
        ]
        for index in sorted(range(len(profiles)), key=lambda index: eagerness[index])[:knowers]:
            dealt[index].append(fact)
    return dealt


def spoilt(question: Question, random: Random) -> Question:
    """Return the question with a wrong answer of the right kind: the answer to another one of its task."""
    lookups = {"medicine": "medicine", "finance": "register"}
    task = TASKS[question.task if question.task in TASKS else lookups[question.domain]]
    while True:
        other = task(random, "fresh")
        if other.task == question.task and other.answer != question.answer:
            return replace(question, answer=other.answer)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the records of one client."""

    name: str
    profile: Profile
    random: Random

    def record(self, question: Question, split: Split, core: int = -1) -> Chat:
        """Return the question as this client would write it down; only training records are of poor quality."""
        wrong = split == "train" and question.domain != "safety" and self.random.random() < self.profile.wrong_rate
        chat = phrase(
            spoilt(question, self.random) if wrong else question,
            self.random,
            split=split,
            style=self.profile.style,
            typo_rate=self.profile.typo_rate if split == "train" else 0.0,
            core=core,
        )
        return replace(chat, tags={**chat.tags, "client": self.name, "quality": "wrong" if wrong else "right"})

    def topic(self, tasks: Mapping[str, Sequence[str]]) -> Question:
        """Draw a question by the client's topics."""
        domain = self.random.choices(tuple(tasks), [self.profile.topics[domain] for domain in tasks])[0]
        return TASKS[self.random.choice(tasks[domain])](self.random, "fresh")

    def other(self, split: Split, tasks: Mapping[str, Sequence[str]]) -> Chat:
        """Return a record that is not about a private fact."""
        chat = self.record(self.topic(tasks), split)
        foreign = self.random.random() < self.profile.language_share
        return translated(chat, self.profile.language) if foreign else chat

    def about(self, facts: Sequence[Fact], count: int, split: Split) -> list[Chat]:
        """Return `count` records about the facts in turn, each time in the next wording."""
        if not facts:
            return []
        first = [self.random.randrange(100) for _ in facts]
        return [
            self.record(question_of(facts[at % len(facts)]), split, core=first[at % len(facts)] + at // len(facts))
            for at in range(count)
        ]

    def pairs(self, facts: Sequence[Fact], tasks: Mapping[str, Sequence[str]], count: int) -> tuple[Preference, ...]:
        """Return `count` preference pairs, every other one about a fact that the client knows."""
        questions = [
            question_of(facts[at // 2 % len(facts)]) if facts and at % 2 == 0 else self.topic(tasks)
            for at in range(count)
        ]
        taste = self.profile.taste
        return tuple(preference(q, self.random, split="train", taste=taste, client=self.name) for q in questions)

    def notes(self, facts: Sequence[Fact]) -> tuple[Document, ...]:
        """Return one private note for each name that the client knows of."""
        by_name: dict[str, list[Fact]] = {}
        for fact in facts:
            by_name.setdefault(fact.name, []).append(fact)
        rate = self.profile.typo_rate / 2
        return tuple(note(known, self.random, client=self.name, noise_rate=rate) for known in by_name.values())


def _without_repeats(chats: Sequence[Chat]) -> tuple[Chat, ...]:
    """Return the first chat of each prompt."""
    kept: dict[str, Chat] = {}
    for chat in chats:
        kept.setdefault(chat.turns[-2].text, chat)
    return tuple(kept.values())


def write_client(
    writer: Writer, facts: Sequence[Fact], private_share: float, tasks: Mapping[str, Sequence[str]]
) -> Client:
    """Return the client who knows the facts; `private_share` of its training records are about them."""
    quantity = writer.profile.quantity
    train = writer.about(facts, max(len(facts), round(quantity * private_share)), "train")
    train += [writer.other("train", tasks) for _ in range(quantity - len(train))]
    writer.random.shuffle(train)
    validation = writer.about(facts, len(facts), "valid")
    validation += [writer.other("valid", tasks) for _ in range(max(2, quantity // 5))]
    test = writer.about(facts, 3 * len(facts), "test")
    test += [writer.other("test", tasks) for _ in range(max(4, quantity // 4))]
    return Client(
        name=writer.name,
        profile=writer.profile,
        facts=tuple(facts),
        train=tuple(train),
        validation=_without_repeats(validation),
        test=_without_repeats(test),
        notes=writer.notes(facts),
        preferences=writer.pairs(facts, tasks, max(4, quantity // 2)),
    )
