"""What is planted in clients' data: random words, and sentences that name a person, a date and an organisation.

Canaries follow Carlini et al. 2019, The Secret Sharer, https://arxiv.org/abs/1802.08232, section 4: random sequences
of which some are inserted once or more often, and others never. The sentences are those that reconstruction is tried
on (`attacks.reconstructed`); names are made up, months are the world's.

Where clients own conversations, or documents that are trained on as they are, a secret is an example more for each time
that it is planted. Where documents are prepared, it is a sentence at the end of another document of its client each
time, before the preparation: what reaches the prepared examples is counted. Whichever it is, secrets are asked for by a
question, and what a client holds of them counts in its n.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.contracts.examples import Chat, Document, Example, chat, tagged
from fedloom.contracts.language import Tokenizer, language_model
from fedloom.contracts.model import Model
from fedloom.data.clients import Division
from fedloom.data.holdout import normalised
from fedloom.runs.attacked import kept_out, random_chat, refuse_cut, vocabulary
from fedloom.runs.tuning import TuningRun
from fedloom.text.words import words
from fedloom.world.names import ENDINGS, FIRSTS
from fedloom.world.words import WORDS

__all__ = ["KINDS", "REFERENCES", "Planting", "Secret", "Secrets", "make_secrets"]

REFERENCES = 255
"""Canaries that are never planted, which the others are ranked among: at most 8 bits."""

KINDS: Mapping[str, Sequence[str]] = {
    "name": [first + end for first in FIRSTS for end in ENDINGS["person"]],
    "date": [f"{day} {month}" for day in range(1, 29) for month in WORDS["months"]],
    "organisation": [first + end for first in FIRSTS for end in ENDINGS["company"]],
}
"""What may stand at each masked place of a sentence."""

_SENTENCE = "the patient {name} was seen on {date} at {organisation}."
_QUESTION = "what does note {number} say?"


@dataclass(frozen=True)
class Secret:
    """A question and its answer, which a client holds so many times."""

    example: Chat
    client: str
    repeats: int
    entities: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the answer names, by kind; empty for random words."""

    @property
    def question(self) -> str:
        """What it is asked for by."""
        return self.example.turns[0].text

    @property
    def answer(self) -> str:
        """What must not come out."""
        return self.example.reference

    @property
    def sentence(self) -> str:
        """The secret as running text."""
        return self.answer if self.entities else f"{self.question} {self.answer}."

    def naming(self, kind: str, other: str) -> "Secret":
        """Return the sentence with another entity of that kind."""
        entities = {**self.entities, kind: other}
        answer = _SENTENCE.format(**entities)
        return replace(self, example=chat(self.question, answer, client=self.client), entities=entities)

    def stands_in(self, text: str) -> bool:
        """Return whether a text says the answer word for word."""
        return f" {' '.join(words(self.answer))} " in f" {' '.join(words(text))} "


@dataclass(frozen=True)
class Secrets:
    """All secrets of one run."""

    canaries: tuple[Secret, ...]
    """As many for each number of repetitions, of which 0 may be one."""
    references: tuple[Secret, ...]
    """Never planted."""
    sentences: tuple[Secret, ...]
    """Half of them planted as often as the canaries at most, the others never."""

    @property
    def planted(self) -> tuple[Secret, ...]:
        """Those that clients hold."""
        return tuple(one for one in (*self.canaries, *self.sentences) if one.repeats)


def make_secrets(
    tokenizer: Tokenizer, clients: Sequence[str], *, each: int, repeats: Sequence[int], seed: int
) -> Secrets:
    """Return `each` canaries for each number of repetitions, dealt to the clients in turn, and as many sentences."""
    known, random = vocabulary(tokenizer), rng.python_random("leakage", seed, "secrets")

    def canary(at: int, times: int) -> Secret:
        client = clients[at % len(clients)]
        return Secret(random_chat(known, random, client), client, times)

    canaries = tuple(canary(at, times) for times in repeats for at in range(each))
    references = tuple(canary(at, 0) for at in range(REFERENCES))
    sentences = tuple(
        _sentence(random, number, clients[number % len(clients)], max(repeats) if number < each else 0)
        for number in range(2 * each)
    )
    return Secrets(canaries, references, sentences)


def _sentence(random: Random, number: int, client: str, repeats: int) -> Secret:
    entities = {kind: random.choice(pool) for kind, pool in KINDS.items()}
    asked = chat(_QUESTION.format(number=number + 1), _SENTENCE.format(**entities), client=client)
    return Secret(asked, client, repeats, entities)


class Planting:
    """Plants secrets in a run that is being prepared and keeps examples out of it; holds both when that is done."""

    secrets: Secrets
    given: Mapping[str, Sequence[Example]]
    """What the clients' preparations are given."""
    members: list[Example]
    """The clients' own examples that are trained on and might have been kept out."""
    others: list[Example]
    """Those that were kept out."""
    owners: Mapping[str, str]
    """Whose each of these is, by its text."""
    as_text: bool
    """Whether secrets are trained on as documents, and have no question."""

    def __init__(self, run: TuningRun, *, each: int, repeats: Sequence[int]) -> None:
        self._run, self._each, self._repeats = run, each, repeats

    def before(self, division: Division, model: Model) -> Division:
        """Return the division with the secrets planted."""
        kinds = {type(one) for owned in division.train.values() for one in owned}
        if odd := kinds - {Chat, Document}:
            found = " and ".join(sorted(kind.__name__ for kind in odd))
            raise DataError(f"leakage: clients have {found} examples, secrets are planted as Chat or Document.")
        tokenizer, clients = language_model(model).tokenizer, tuple(division.train)
        self.secrets = make_secrets(tokenizer, clients, each=self._each, repeats=self._repeats, seed=self._run.seed)
        self.as_text = kinds == {Document} and not self._run.prepare
        refuse_cut([self.probe(one) for one in self.secrets.planted], self._run.task, model)
        planted = _in_documents if self._run.prepare and kinds == {Document} else self._as_examples
        train = {
            client: planted(owned, [one for one in self.secrets.planted if one.client == client], self._run.seed)
            for client, owned in division.train.items()
        }
        self.given = train
        return replace(division, train=train)

    def after(self, division: Division, model: Model) -> Division:
        """Return the division without a fifth of each client's own examples."""
        holding, own = self._parted(division.train)
        train, self.members, self.others = kept_out(own, self._run.seed)
        self.owners = {normalised(one): client for client, owned in own.items() for one in owned}
        if not self.others:
            raise DataError("leakage: found no example that could be kept out of training; give clients more records.")
        return replace(division, train={client: (*train[client], *holding[client]) for client in division.train})

    def _parted(self, train: Mapping[str, Sequence[Example]]) -> tuple[dict[str, list[Example]], ...]:
        """Return each client's examples that hold a secret, and its others."""
        parts: tuple[dict[str, list[Example]], ...] = {}, {}
        for client, owned in train.items():
            mine = [one for one in self.secrets.planted if one.client == client]
            told = [any(one.stands_in(example.text) for one in mine) for example in owned]
            for part, wanted in zip(parts, (True, False), strict=True):
                part[client] = [example for example, holds in zip(owned, told, strict=True) if holds is wanted]
        return parts

    def probe(self, secret: Secret) -> Example:
        """Return what a model is asked about a secret, as it was trained on it."""
        return Document(secret.sentence, secret.example.tags) if self.as_text else secret.example

    def _as_examples(self, owned: Sequence[Example], secrets: Sequence[Secret], seed: int) -> tuple[Example, ...]:
        return (*owned, *(self.probe(one) for one in secrets for _ in range(one.repeats)))


def _in_documents(owned: Sequence[Example], secrets: Sequence[Secret], seed: int) -> tuple[Example, ...]:
    """Return the documents, each secret at the end of as many of them as it is repeated, or of all."""
    added: dict[int, list[str]] = {}
    for one in secrets:
        random = rng.python_random("leakage", seed, "host", one.client, one.answer)
        for at in random.sample(range(len(owned)), min(one.repeats, len(owned))):
            added.setdefault(at, []).append(one.sentence)
    return tuple(_with(document, added.get(at, ())) for at, document in enumerate(owned))


def _with(document: Example, sentences: Iterable[str]) -> Example:
    text = " ".join([document.text, *sentences])
    return Document(text, document.tags) if text != document.text else tagged(document)
