"""A client's passages to completions: asked with their examples, with fewer, then in halves, until a prompt fits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedloom.base import rng
from fedloom.base.files import json_sha256
from fedloom.completers.answer_file import Asker, Request
from fedloom.contracts.evaluation import Sampling
from fedloom.contracts.synthesis import PoolRow
from fedloom.synthesis.passages import Passage, halves
from fedloom.synthesis.prompting import Prompts

__all__ = ["Completed", "Job", "Prompting", "completed"]

_ABOUT_LENGTH = re.compile(r"token|context|length|too long", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Job:
    """A passage, the examples that it is shown with, and which draw of several it is."""

    passage: Passage
    rows: tuple[int, ...]
    """Of the pool, the most similar last."""
    similarity: tuple[float, ...]
    fallback: bool
    draw: int = 0

    @property
    def id(self) -> str:
        """What the candidate is called."""
        return f"{self.passage.id}#{self.draw}"

    def shorter(self, *, divide: bool) -> list["Job"]:
        """Return what to ask in its place where a prompt has no room: without the least similar example, or halves.

        The list is empty for a passage that is not to be divided, or too short for it: nothing is cut off unseen.
        """
        if self.rows:
            return [replace(self, rows=self.rows[1:], similarity=self.similarity[1:])]
        return [replace(self, passage=half) for half in halves(self.passage)] if divide else []


@dataclass(frozen=True, slots=True)
class Completed:
    """What a completer wrote for a job."""

    job: Job
    text: str
    prompt_sha256: str
    refused: str = ""
    """Why there is no text: `too_long` for any prompt, or `refused` by the completer for another reason."""


@dataclass(frozen=True)
class Prompting:
    """How jobs become requests."""

    prompts: Prompts
    pool: Sequence[PoolRow]
    sampling: Sampling
    seed: int
    key: bytes
    """What fences are made with."""

    def request(self, job: Job) -> Request:
        """Return the prompt of a job, and how its completion is drawn: by a seed of its own."""
        prompt = self.prompts.prompt(job.passage.text, [self.pool[row] for row in job.rows], self.key)
        seed = rng.seed_of(self.seed, "pair", job.passage.text, job.draw) % 2**31
        return prompt, replace(self.sampling, seed=seed if self.sampling.temperature else 0)


def completed(jobs: Sequence[Job], prompting: Prompting, asker: Asker, *, divide: bool) -> list[Completed]:
    """Return completions in the order of the jobs, those in halves in the place of the whole.

    Raises CompletionError as the completer does; what was answered until then is kept.
    """
    waiting = {(at,): job for at, job in enumerate(jobs)}
    done: dict[tuple[int, ...], Completed] = {}
    while waiting:
        found = _asked([*waiting.values()], prompting, asker)
        again: dict[tuple[int, ...], Job] = {}
        for place, one in zip(waiting, found, strict=True):
            shorter = one.job.shorter(divide=divide) if one.refused == "too_long" else []
            if not shorter:
                done[place] = one
            again |= {(*place, part): job for part, job in enumerate(shorter)}
        waiting = again
    return [done[place] for place in sorted(done)]


def _asked(jobs: Sequence[Job], prompting: Prompting, asker: Asker) -> list[Completed]:
    requests = [prompting.request(job) for job in jobs]
    hashes = [json_sha256([(turn.role, turn.text) for turn in prompt]) for prompt, _ in requests]
    found: list[Completed] = []
    for job, digest, answer in zip(jobs, hashes, asker.ask(requests), strict=True):
        about_length = "too_long" if _ABOUT_LENGTH.search(answer.refused) else "refused"
        found.append(Completed(job, answer.text, f"sha256:{digest}", about_length if answer.refused else ""))
    return found
