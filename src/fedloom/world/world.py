"""World: the one door to the generated data. A seed gives the same bytes on every machine."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from fedloom.base.errors import DataError
from fedloom.base.rng import python_random
from fedloom.contracts.examples import Chat, Document, Preference
from fedloom.world.clients import Client, Writer, deal, draw_profile, write_client
from fedloom.world.domains import DOMAINS, FINISHING_WEIGHTS, TASKS, WEIGHTS
from fedloom.world.facts import Fact, private_facts, public_facts, question_of
from fedloom.world.languages import LANGUAGES
from fedloom.world.names import Kind, Pool, pool
from fedloom.world.passages import article, note
from fedloom.world.preferences import Taste, preference
from fedloom.world.talk import follow_ups, joined, with_system
from fedloom.world.wording import STYLES, Split, phrase

__all__ = ["TESTS", "Test", "World"]

Test = Literal["private", "public", "safety", "entities"]
TESTS: tuple[Test, ...] = ("private", "public", "safety", "entities")

_DRAWN: Mapping[Test, tuple[Sequence[str], Pool]] = {
    "public": ([task for tasks in DOMAINS.values() for task in tasks], "fresh"),
    "safety": (DOMAINS["safety"], "fresh"),
    # Tasks that stand on names in the question, so that names never seen before test them.
    "entities": (("copy", "pick", "read", "sentiment"), "held"),
}
"""The tasks of a test whose questions are drawn, and the pool of their names."""


def _by_name(facts: Sequence[Fact]) -> list[list[Fact]]:
    return [list(group) for _, group in itertools.groupby(facts, key=lambda fact: fact.name)]


def _style(random: Random) -> str:
    return random.choices(tuple(STYLES), [style.weight for style in STYLES.values()])[0]


@dataclass(frozen=True, slots=True)
class World:
    """The closed world: public text, private clients and tests with known answers.

    The public part (canon facts, tasks, wordings) is the same for every seed; the seed draws private facts, clients
    and the order of everything.
    """

    seed: int = 0
    n_drugs: int = 12
    """Drugs of which clients hold three private facts each; at most 50."""
    n_companies: int = 12
    """Companies of which clients hold two private facts each; at most 50."""

    def __post_init__(self) -> None:
        counts: dict[Kind, int] = {"drug": self.n_drugs, "company": self.n_companies}
        for kind, count in counts.items():
            most = len(pool(kind, "private"))
            if not 0 <= count <= most:
                raise DataError(f"a world whose clients know {count} names of kind {kind}, allowed is 0 to {most}.")

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Return the private facts."""
        return private_facts(self.seed, self.n_drugs, self.n_companies)

    def pretraining(
        self, count: int, *, start: int = 0, weights: Mapping[str, float] = WEIGHTS
    ) -> Iterator[Chat | Document]:
        """Yield `count` public examples, train wordings only: what the embedded model learns from."""
        for index in range(start, start + count):
            yield self._public(python_random("world", self.seed, "pretraining", index), weights)

    def clients(
        self,
        n_clients: int = 20,
        *,
        records: int = 40,
        private_share: float = 0.6,
        knowers_share: float = 0.2,
        domains: Sequence[str] = tuple(DOMAINS),
        languages: Sequence[str] = ("plain",),
    ) -> tuple[Client, ...]:
        """Return the clients of a federation.

        `records` is the median number of training records; `private_share` of them are about the client's own facts
        (each of which it holds at least once); each fact is known to `knowers_share` of all clients. With more than
        one language every fourth client writes half of its other records in the next of them.
        """
        for given, allowed, what in ((domains, tuple(DOMAINS), "domain"), (languages, LANGUAGES, "language")):
            unknown = [name for name in given if name not in allowed]
            if unknown or not given:
                listed = ", ".join(allowed)
                raise DataError(f"the world has no {what} {unknown}, allowed are {listed}: name at least one.")
        if n_clients < 1 or records < 1:
            raise DataError(
                f"a world of {n_clients} clients with {records} records each, allowed is at least 1 of both."
            )
        randoms = [python_random("world", self.seed, "client", index) for index in range(n_clients)]
        profiles = [draw_profile(random, index, records, languages) for index, random in enumerate(randoms)]
        known = [fact for fact in self.facts if fact.relation.domain in domains and private_share > 0]
        knowers = max(1, round(knowers_share * n_clients))
        dealt = deal(known, profiles, knowers, python_random("world", self.seed, "deal", n_clients))
        tasks = {domain: tasks for domain, tasks in DOMAINS.items() if domain in domains}
        return tuple(
            write_client(Writer(f"c{index:02d}", profile, random), own, private_share, tasks)
            for index, (profile, random, own) in enumerate(zip(profiles, randoms, dealt, strict=True))
        )

    def test(self, kind: Test, *, per_task: int = 40) -> tuple[Chat, ...]:
        """Return a test, all in held-out wordings and without repeated prompts.

        `private`: every private fact in every test core; `public`: `per_task` questions of each task; `safety`:
        harmful requests, near-by harmless ones, careful ones; `entities`: names that occur in no training text.
        """
        if kind == "private":
            return tuple(self._private_test())
        if kind in _DRAWN:
            return self._drawn_test(*_DRAWN[kind], per_task)
        raise DataError(f"the world has no test '{kind}', allowed are {', '.join(TESTS)}.")

    def preferences(self, count: int, *, split: Split = "train", taste: Taste = "short") -> tuple[Preference, ...]:
        """Return public preference pairs; clients have their own in `Client.preferences`."""
        random = python_random("world", self.seed, "preferences", split, taste)
        tasks = random.choices(tuple(FINISHING_WEIGHTS), tuple(FINISHING_WEIGHTS.values()), k=count)
        return tuple(preference(TASKS[task](random, "fresh"), random, split=split, taste=taste) for task in tasks)

    def passages(self, count: int) -> tuple[Document, ...]:
        """Return public passages; clients have private ones in `Client.notes`."""
        random = python_random("world", self.seed, "passages")
        return tuple(article(random.choice(_by_name(public_facts())), random) for _ in range(count))

    def examples(self, count: int) -> tuple[tuple[Document, Chat], ...]:
        """Return public notes, each with a question about a fact that it tells: the same in every world."""
        random = python_random("world", "examples")
        found: list[tuple[Document, Chat]] = []
        for _ in range(count):
            facts = random.choice(_by_name(public_facts()))
            told = random.sample(facts, random.randint(1, len(facts)))
            document = note(told, random, client="public")
            found.append((document, phrase(question_of(random.choice(told)), random, split="train")))
        return tuple(found)

    def multi_turn(self, count: int, *, split: Split = "train") -> tuple[Chat, ...]:
        """Return public conversations: half follow up on one name, half are separate questions in a row."""
        random = python_random("world", self.seed, "multi_turn", split)
        return tuple(self._talk(random, split, FINISHING_WEIGHTS, leaning=index % 2 == 0) for index in range(count))

    def _public(self, random: Random, weights: Mapping[str, float]) -> Chat | Document:
        kind = random.random()
        if kind < 0.03:
            return article(random.choice(_by_name(public_facts())), random)
        if kind < 0.10:
            return self._talk(random, "train", weights, leaning=kind < 0.06)
        single = self._asked(random, "train", weights)
        return with_system(single, random) if kind < 0.14 else single

    def _asked(self, random: Random, split: Split, weights: Mapping[str, float]) -> Chat:
        task = random.choices(tuple(weights), tuple(weights.values()))[0]
        typo_rate = 0.03 if split == "train" else 0.0
        return phrase(TASKS[task](random, "fresh"), random, split=split, style=_style(random), typo_rate=typo_rate)

    def _talk(self, random: Random, split: Split, weights: Mapping[str, float], *, leaning: bool) -> Chat:
        if leaning:
            facts = random.choice(_by_name(public_facts()))
            return follow_ups(random.sample(facts, len(facts)), random, split=split)
        return joined([self._asked(random, split, weights) for _ in range(random.randint(2, 3))], task="multi_turn")

    def _private_test(self) -> Iterator[Chat]:
        random = python_random("world", self.seed, "test", "private")
        for fact in self.facts:
            for core in range(len(fact.relation.wordings.test)):
                yield phrase(question_of(fact), random, split="test", core=core)

    def _drawn_test(self, tasks: Sequence[str], entities: Pool, per_task: int) -> tuple[Chat, ...]:
        found: dict[str, Chat] = {}
        for task in tasks:
            random = python_random("world", self.seed, "test", entities, task)
            # Small tasks have few different questions: stop after many repeats rather than loop for ever.
            kept: dict[str, Chat] = {}
            for _ in range(per_task * 20):
                drawn = phrase(TASKS[task](random, entities), random, split="test", style=_style(random))
                kept.setdefault(drawn.turns[0].text, replace(drawn, tags={**drawn.tags, "asked_as": task}))
                if len(kept) == per_task:
                    break
            found |= kept
        return tuple(found.values())
