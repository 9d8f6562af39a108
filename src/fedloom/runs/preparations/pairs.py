"""Unstructured text to instruction data at each client: examples retrieved, pairs generated and filtered.

FedIT-U2S (https://arxiv.org/abs/2409.07136): for each document d the completer is given a prompt Concat(I, S, d) of an
instruction I, examples S of a public pool and the document, and writes a pair (x, y); what survives the filters is
trained on. Documents, prompts and pairs stay at the client.

Deviations: the published filters have unknown bounds and a reward model; here they are a chain with reasons, and scores
are cut at quantiles of each client. Which data, models and bounds were used is not published.

    prepared/AT_pairs/CLIENT/answers.jsonl    what the completer has answered, so that nothing is asked twice
    prepared/AT_pairs/CLIENT/pairs.jsonl      every pair with its examples and verdicts, dropped ones too
    prepared/AT_pairs/CLIENT/verdicts.jsonl   what completers that filters ask have answered
    prepared/AT_pairs/CLIENT/key              what fences are made with; read by its owner alone
"""

import json
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import field
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.files import disk_errors, json_sha256, write_atomic
from fedloom.base.plugin import AtLeast, Count, Fraction, NonNegative, default, lookup, plugin
from fedloom.completers.answer_file import Budget, asking, bytes_sent, refuse_remote, write_cost
from fedloom.contracts.evaluation import Completer, Sampling
from fedloom.contracts.examples import Chat, Document, Example, Turn
from fedloom.contracts.stages import Made, Owner, Preparation
from fedloom.contracts.synthesis import Allocator, Around, Candidate, Filter, Selector, Where
from fedloom.synthesis.allocation import apportioned, dealt_by_kind
from fedloom.synthesis.asking import Completed, Job, Prompting, completed
from fedloom.synthesis.chain import counts, judges, refuse_blind, trained_on
from fedloom.synthesis.passages import Passage, divided, unreadable
from fedloom.synthesis.pool import Pool, read_pool
from fedloom.synthesis.prompting import prompts
from fedloom.synthesis.record import judged_completions, lines
from fedloom.synthesis.vectors import similarities, tfidf_pairs

__all__ = ["Pairs"]

_LEAST_QUALITY = 1e-6  # who trains counts, be it a little


def _default_filters() -> tuple[Filter, ...]:
    return tuple(lookup(Filter, name)() for name in ("form", "copy", "grounding", "duplicate"))


@plugin("pairs")
class Pairs(Preparation):
    """Instruction data from documents, by a completer that is shown examples."""

    needs = ("sklearn",)

    pool: str = ""
    """File of public examples: document, instruction and response, perhaps id and domain; `world` takes public notes
    of the controlled world."""
    completer: Completer = field(default_factory=default(Completer, "model"))
    """Who writes the pairs."""
    selector: Selector = field(default_factory=default(Selector, "per_datum"))
    """Which examples a document is shown with."""
    filters: tuple[Filter, ...] = field(default_factory=_default_filters)
    """What a pair has to pass, one after another."""
    per_document: AtLeast = 1
    """Pairs drawn for each passage of a document; more than one needs a temperature."""
    temperature: NonNegative = 0.0
    """Of the drawn answers."""
    top_p: Fraction = 1.0
    """Share of probability of which tokens are drawn."""
    max_new_tokens: AtLeast = 256
    """Most tokens of a pair."""
    passage_words: AtLeast = 512
    """Words from which on a document is divided into passages."""
    shared_words: Count = 64
    """Words that neighbouring passages have in common."""
    divide: bool = True
    """Whether long documents are divided; if not, they are dropped, and one document is one pair at most."""
    encoder: str = ""
    """Folder of a sentence encoder by which examples are retrieved; empty takes TF-IDF fitted on the pool."""
    allow_remote: bool = False
    """Whether prompts, which hold the documents, may go to another machine."""
    max_requests: Count = 0
    """Most requests to the completer for one client; 0: no limit."""
    max_tokens: Count = 0
    """Most tokens of prompts and completions for one client; 0: no limit."""
    total: Count = 0
    """Most pairs to ask for of one client, dealt over its documents; 0: `per_document` for each of their passages."""
    allocator: Allocator = field(default_factory=default(Allocator, "equal"))
    """How the total is dealt."""
    deal_by: str = ""
    """Tag whose values share the total by how many documents they have; empty: each document is one of its own."""

    def check(self) -> None:
        """Refuse settings that contradict each other, and private text for another machine."""
        if not self.pool:
            raise ConfigError("pool: missing; name the file of public examples.")
        if self.per_document > 1 and not self.temperature:
            raise ConfigError(
                f"per_document: found {self.per_document} with temperature 0, which draws the same pair each time; set "
                "a temperature above 0."
            )
        if (self.total and self.per_document > 1) or (self.deal_by and not self.total):
            raise ConfigError(
                f"total: found {self.total} with per_document = {self.per_document} and deal_by = '{self.deal_by}', "
                "allowed is a total with per_document = 1, or no total and no deal_by; set one of the two."
            )
        if self.shared_words >= self.passage_words:
            raise ConfigError(
                f"shared_words: found {self.shared_words}, allowed are fewer than passage_words = {self.passage_words}."
            )
        refuse_blind("filters", self.filters, ("document", "response"))
        what = "its prompts hold private documents"
        refuse_remote("completer", self.completer, what, allowed=self.allow_remote)

    def brings_in(self) -> str:
        """Return what lets one document decide about several pairs; "" where each is one pair at most."""
        if self.total:
            return "prepare: 'pairs', which deals a total over documents (total),"
        if self.divide or self.per_document > 1:
            return "prepare: 'pairs', which makes several pairs of a document (divide, per_document),"
        steps = (self.selector, *self.filters)
        return next((f"prepare: 'pairs', whose {found}" for step in steps if (found := step.brings_in())), "")

    def identity(self) -> str:
        """Return the hashes of pool, prompts and completer, and of whoever filters ask."""
        own = read_pool(self.pool).sha256, prompts().sha256, self.completer.identity()
        return json.dumps([*own, *filter(None, (step.identity() for step in self.filters))])

    def public_texts(self) -> dict[str, str]:
        """Return the texts of the pool by id, none of which may be measured by."""
        return read_pool(self.pool).texts

    def trained_on_sets(self) -> tuple[str, ...]:
        """Return those of the filters."""
        return trained_on(self.filters)

    def public_card(self) -> dict[str, Any]:
        """Return the card of the pool."""
        return read_pool(self.pool).card

    def __call__(self, examples: Sequence[Example], owner: Owner) -> Made:
        """Return the pairs that survive as Chats, each with the tags of its document."""
        odd = next((one for one in examples if not isinstance(one, Document)), None)
        if odd is not None:
            raise DataError(
                f"prepare 'pairs': client '{owner.name}' has a {type(odd).__name__}, allowed are documents: read the "
                "data with form = 'text'."
            )
        with ExitStack() as stack:
            folder = owner.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return self._made([one for one in examples if isinstance(one, Document)], owner, folder)

    def _made(self, documents: Sequence[Document], owner: Owner, folder: Path) -> Made:
        pool, start_s = read_pool(self.pool), time.monotonic()
        passages, lost = self._passages(documents)
        jobs = self._jobs(passages, self._draws(passages, documents), pool, owner)
        budget = Budget(max_requests=self.max_requests or None, max_tokens=self.max_tokens or None)
        with asking(self.completer, folder / "answers.jsonl", budget) as asker:
            written = completed(jobs, self._prompting(pool, owner, folder), asker, divide=self.divide)
        written = sorted([*lost, *written], key=_place)
        found = judged_completions(written, self.filters, Around(pool.rows, folder / "verdicts.jsonl"))
        facts = {"client": owner.name, "generator": self.completer.identity(), "seed": owner.seed}
        write_atomic(folder / "pairs.jsonl", lines(written, found, pool.rows, facts))
        write_cost(folder / "cost.json", asker.counts, time.monotonic() - start_s)
        kept = [(one.job.passage, step.candidate) for one, step in zip(written, found, strict=True) if not step.reason]
        chats = [
            Chat((Turn("user", pair.instruction), Turn("assistant", pair.response)), documents[passage.document].tags)
            for passage, pair in kept
        ]
        asked = {"asked": len(jobs)} if self.total else {}
        told = {"documents": len(documents)} | asked | counts(found)
        return Made(chats, told, self._sent(folder), quality=_likeness(kept))

    def _passages(self, documents: Sequence[Document]) -> tuple[list[Passage], list[Completed]]:
        """Return the passages to write about, and the documents that are none, each with its reason."""
        found: list[Passage] = []
        lost: list[Completed] = []
        for at, document in enumerate(documents):
            whole = Passage(at, 0, len(document.text), document.text)
            parts = divided(whole, most=self.passage_words, shared=self.shared_words)
            reason = unreadable(document.text) or ("" if self.divide or len(parts) == 1 else "too_long")
            if reason:
                lost.append(Completed(Job(whole, (), (), fallback=False), "", "", reason))
            else:
                found += parts
        return found, lost

    def _draws(self, passages: Sequence[Passage], documents: Sequence[Document]) -> list[int]:
        """Return how many pairs each passage is asked for; without a temperature one at most, as all would be alike."""
        if not self.total:
            return [self.per_document] * len(passages)
        n_parts = Counter(passage.document for passage in passages)
        kinds = [documents[at].tags.get(self.deal_by, "") if self.deal_by else str(at) for at in n_parts]
        dealt = zip(n_parts.items(), dealt_by_kind(self.total, kinds, self.allocator), strict=True)
        draws = [n_draws for (_, n_passages), part in dealt for n_draws in apportioned(part, [1] * n_passages)]
        return draws if self.temperature else [min(n_draws, 1) for n_draws in draws]

    def _jobs(self, passages: Sequence[Passage], draws: Sequence[int], pool: Pool, owner: Owner) -> list[Job]:
        """Return a job for each draw of each passage, with the examples that the selector chooses."""
        if not passages:
            return []
        near = similarities(
            [passage.text for passage in passages], [row.document for row in pool.rows], encoder=self.encoder
        )
        keys = tuple(json_sha256(passage.text) for passage in passages)
        chosen = self.selector(near, Where(owner.seed, owner.name, keys))
        return [
            Job(
                passage,
                selection.rows,
                tuple(near.to_pool_NM[at, list(selection.rows)].tolist()),
                fallback=selection.fallback,
                draw=draw,
            )
            for at, (passage, selection) in enumerate(zip(passages, chosen, strict=True))
            for draw in range(draws[at])
        ]

    def _prompting(self, pool: Pool, owner: Owner, folder: Path) -> Prompting:
        sampling = Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=prompts().stop,
        )
        return Prompting(prompts(), pool.rows, sampling, owner.seed, _key(folder / "key"))

    def _sent(self, folder: Path) -> dict[str, int]:
        """Return the bytes of all prompts that went to other machines, those of filters too."""
        asked = [(self.completer, folder / "answers.jsonl")]
        return bytes_sent([*asked, *((judge, folder / "verdicts.jsonl") for judge in judges(self.filters))])


def _likeness(kept: Sequence[tuple[Passage, Candidate]]) -> float:
    """Return the mean cosine of pairs and their passages by TF-IDF fitted on these; 1 where there is no pair."""
    if not kept:
        return 1.0
    passages = {passage.id: passage.text for passage, _ in kept}
    places = {name: at for at, name in enumerate(passages)}
    own = [(at, places[passage.id]) for at, (passage, _) in enumerate(kept)]
    cosines = tfidf_pairs([f"{pair.instruction}\n{pair.response}" for _, pair in kept], [*passages.values()], own)
    mean = sum(cosines) / len(kept)
    return min(max(mean, _LEAST_QUALITY), 1.0)


def _place(one: Completed) -> tuple[int, int, int]:
    """Return what completions are ordered by: document, passage, draw."""
    return one.job.passage.document, one.job.passage.start, one.job.draw


def _key(path: Path) -> bytes:
    """Return the key that fences are made with: 32 random bytes, drawn once for a folder and its owner's alone."""
    if not path.is_file():
        with disk_errors(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode())
    return path.read_bytes()
