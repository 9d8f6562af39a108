"""The controlled world as a data set: every client's records, and tests whose answers are known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, Fraction, plugin
from fedloom.contracts.examples import Chat, Example, text_id
from fedloom.contracts.federated import Source
from fedloom.world import DOMAINS, TESTS, Client, World, answered

__all__ = ["WorldSource"]

TestName = Literal["private", "public", "safety", "entities", "clients", "preferences"]


@plugin("world")
class WorldSource(Source):
    """Clients of the controlled world; train and validation records carry the tag `client`."""

    made_up: ClassVar[bool] = True
    seed: int = 0
    """Draws the private facts and the clients; the public part is always the same."""
    n_clients: AtLeast = 20
    """Clients of the world."""
    records: AtLeast = 40
    """Median number of training records of a client (log-normal)."""
    n_drugs: int = 12
    """Drugs that private facts are about."""
    n_companies: int = 12
    """Companies that private facts are about."""
    private_share: Fraction = 0.6
    """Share of a client's records that are about its own private facts."""
    knowers_share: Fraction = 0.2
    """Share of the clients that know a fact."""
    domains: tuple[str, ...] = tuple(DOMAINS)
    """Domains of the clients, dealt to them in turn."""
    languages: tuple[str, ...] = ("plain",)
    """With more than one, every fourth client writes half of its other records in the next of them."""
    form: Literal["chat", "preference", "note"] = "chat"
    """What a training record is: a question with its answer, a preference pair, or raw private text. Pairs have no
    validation split of their own: the run holds some out."""
    harmful: Literal["refused", "answered"] = "refused"
    """What clients' records answer to harmful requests; `answered` makes a model to be aligned."""
    tests: tuple[TestName, ...] = ("private",)
    """`clients` adds each client's own test, so that its questions are scored per client; `preferences` are pairs in
    held-out wordings."""
    test_per_task: AtLeast = 20
    """Questions of each task in the tests `public`, `safety` and `entities`; a tenth of the test `preferences`."""

    def check(self) -> None:
        """Refuse tests that the world has not."""
        unknown = [name for name in self.tests if name not in (*TESTS, "clients", "preferences")]
        if unknown:
            raise ConfigError(f"tests: found {unknown}, allowed are {', '.join(TESTS)}, clients, preferences.")

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the records of all clients in their order, and the tests."""
        world, clients = self._made()
        splits: dict[str, Sequence[Example]] = {
            "train": [record for client in clients for record in self._records(client)],
            "test": [question for name in self.tests for question in self._test(name, world, clients)],
        }
        validation = [record for client in clients for record in client.validation]
        return splits if self.form == "preference" else splits | {"validation": validation}

    def brings_in(self) -> str:
        """Return "": every record is made by itself."""
        return ""

    def unit(self, example: Example) -> str:
        """Return the name that a question about a private fact is about."""
        return example.tags["fact"].partition(":")[2] if example.tags.get("part") == "private" else ""

    def truth(self) -> Mapping[str, Any]:
        """Return which training records have a wrong answer, or what each note tells: `{fact: answer}`."""
        _, clients = self._made()
        if self.form == "chat":
            return {"wrong": {client.name: _wrong(self._chats(client)) for client in clients}}
        return {"told": {client.name: _told(client) for client in clients}} if self.form == "note" else {}

    def _made(self) -> tuple[World, Sequence[Client]]:
        world = World(self.seed, self.n_drugs, self.n_companies)
        clients = world.clients(
            self.n_clients,
            records=self.records,
            private_share=self.private_share,
            knowers_share=self.knowers_share,
            domains=self.domains,
            languages=self.languages,
        )
        return world, clients

    def _records(self, client: Client) -> Sequence[Example]:
        chats = [_untold(record) for record in self._chats(client)]
        return {"chat": chats, "preference": client.preferences, "note": client.notes}[self.form]

    def _chats(self, client: Client) -> Sequence[Chat]:
        return client.train if self.harmful == "refused" else [answered(record) for record in client.train]

    def _test(self, name: TestName, world: World, clients: Sequence[Client]) -> Sequence[Example]:
        if name == "preferences":
            return world.preferences(10 * self.test_per_task, split="test")
        if name == "clients":
            return [question for client in clients for question in client.test]
        return world.test(name, per_task=self.test_per_task)


def _untold(record: Chat) -> Chat:
    """Return a training record without what only the simulation knows: whether its answer is wrong."""
    return replace(record, tags={name: value for name, value in record.tags.items() if name != "quality"})


def _wrong(chats: Sequence[Chat]) -> list[str]:
    return [text_id(record) for record in chats if record.tags["quality"] == "wrong"]


def _told(client: Client) -> dict[str, dict[str, str]]:
    answers = {fact.id: fact.answer for fact in client.facts}
    return {text_id(note): {fact: answers[fact] for fact in note.tags["facts"].split()} for note in client.notes}
