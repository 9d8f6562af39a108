"""From a model's questions to pairs that another one answered: drawn, judged, answered, judged again.

Distillation at the level of data (KnowledgeSG, https://arxiv.org/abs/2410.05725, section 3): a model that was tuned
privately writes questions, a professional model answers those that filters let pass. A candidate has no document.

Of questions that were let pass, those that are answered are drawn by the seed; answers are drawn several times where a
filter is to tell whether they agree. questions = rejected + surplus + answered, answered = rejected + kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedloom.base import rng
from fedloom.base.files import json_sha256
from fedloom.completers.answer_file import Asker, Request
from fedloom.contracts.evaluation import Completion, Sampling
from fedloom.contracts.synthesis import Around, Ask, Candidate, Filter, PoolRow, Questioner
from fedloom.synthesis.chain import Judged, counts, judged
from fedloom.synthesis.questioning import Teaching

__all__ = ["Answering", "Asking", "Distilled", "Question", "answered", "asked", "chosen"]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How questions are written, and which are answered."""

    questioner: Questioner
    seeds: Sequence[PoolRow]
    sampling: Sampling
    filters: Sequence[Filter]
    seed: int

    def request(self, ask: Ask, at: int) -> Request:
        """Return what a model is asked; each question is drawn by a seed of its own."""
        seed = rng.seed_of(self.seed, "question", at) % 2**31 if self.sampling.temperature else 0
        return ask.prompt, replace(self.sampling, seed=seed)

    def candidate(self, ask: Ask, text: str, at: int) -> Candidate:
        """Return a completion as the pair that it may become."""
        instruction, response = self.questioner.read(text)
        return Candidate(id=str(at), document="", instruction=instruction, response=response, examples=ask.examples)


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How questions are answered."""

    teaching: Teaching
    sampling: Sampling
    samples: int
    """Answers to each question; 0 keeps what was written beside it."""
    filters: Sequence[Filter]
    seed: int
    shown: Sequence[PoolRow] = ()
    """Public examples that each question is put after."""

    def requests(self, question: Candidate) -> list[Request]:
        """Return as many requests as answers are drawn, each by a seed of its own."""
        prompt = self.teaching.prompt(question.instruction, self.shown)
        seeds = [rng.seed_of(self.seed, "answer", draw) % 2**31 for draw in range(self.samples)]
        return [(prompt, replace(self.sampling, seed=seed if self.sampling.temperature else 0)) for seed in seeds]


@dataclass(frozen=True)
class Question:
    """A question with the verdicts on it."""

    judged: Judged
    prompt: str
    """The hash of the prompt that it was written by; "" for one that nobody wrote."""
    tokens: int
    """Of prompt and completion, as far as they are known."""


@dataclass(frozen=True)
class Distilled:
    """All questions, and what became of those that were answered."""

    questions: Sequence[Question]
    answers: Mapping[int, Judged]
    """By the place of the question; of the others that were let pass there were enough."""
    answer_tokens: int

    @property
    def pairs(self) -> list[Candidate]:
        """The pairs that are kept."""
        return [answer.candidate for answer in self.answers.values() if not answer.reason]

    @property
    def counts(self) -> dict[str, int]:
        """How many questions and answers were written, kept, and dropped for each reason; and the tokens of both."""
        asked = counts([question.judged for question in self.questions])
        told = counts([*self.answers.values()])
        passed, n_answers = asked.pop("accepted"), told.pop("generated")
        named = {"questions": asked.pop("generated"), **{f"questions_{name}": n for name, n in asked.items()}}
        ends = {"surplus": passed - n_answers, "answers": n_answers, "kept": told.pop("accepted")}
        tokens = {"question_tokens": sum(one.tokens for one in self.questions), "answer_tokens": self.answer_tokens}
        return {**named, **ends, **{f"answers_{name}": n for name, n in told.items()}, **tokens}

    def lines(self, facts: Mapping[str, Any]) -> str:
        """Return a line of JSON for each question, kept or dropped; `facts` are the same in all."""
        records = (self._record(at, question) for at, question in enumerate(self.questions))
        return "".join(json.dumps(dict(facts) | record, ensure_ascii=False) + "\n" for record in records)

    def _record(self, at: int, question: Question) -> dict[str, Any]:
        answer = self.answers.get(at)
        last = answer or question.judged
        return {
            "id": last.candidate.id,
            "instruction": last.candidate.instruction,
            "response": last.candidate.response,
            "others": list(last.candidate.others),
            "examples": [row.id for row in last.candidate.examples],
            "question_filters": question.judged.record,
            "filters": answer.record if answer else {},
            "reason": last.reason or ("" if answer else "surplus"),
            "prompt": question.prompt,
        }


def asked(asking: Asking, count: int, asker: Asker, around: Around) -> list[Question]:
    """Return as many questions with the verdicts on them.

    Raises CompletionError as the completer does; what was answered until then is kept.
    """
    asks = asking.questioner.asks(asking.seeds, count, asking.seed)
    requests = [asking.request(ask, at) for at, ask in enumerate(asks)]
    written = iter(asker.ask([request for ask, request in zip(asks, requests, strict=True) if not ask.text]))
    texts = [Completion(ask.text) if ask.text else next(written) for ask in asks]
    candidates = [asking.candidate(ask, text.text, at) for at, (ask, text) in enumerate(zip(asks, texts, strict=True))]
    found = judged(candidates, _refused(candidates, texts), asking.filters, around)
    return [
        Question(one, "" if ask.text else _sha256(request), text.n_tokens + text.prompt_tokens)
        for one, ask, text, request in zip(found, asks, texts, requests, strict=True)
    ]


def chosen(questions: Sequence[Question], most: int, seed: int) -> list[int]:
    """Return the places of the questions that are answered: at most so many of those let pass, 0 being all."""
    left = [at for at, question in enumerate(questions) if not question.judged.reason]
    if not most or len(left) <= most:
        return left
    return sorted(rng.python_random(seed, "chosen").sample(left, most))


def answered(
    questions: Sequence[Candidate], texts: Sequence[Completion], answering: Answering, around: Around
) -> tuple[list[Judged], int]:
    """Return each question with its answer, the first of its texts, the verdicts on both, and the tokens of all."""
    if not answering.samples:
        return judged(questions, {}, answering.filters, around), 0
    firsts = texts[:: answering.samples]
    candidates = [
        replace(question, response=first.text, others=tuple(one.text for one in texts[at + 1 : at + answering.samples]))
        for question, first, at in zip(questions, firsts, range(0, len(texts), answering.samples), strict=True)
    ]
    found = judged(candidates, _refused(candidates, firsts), answering.filters, around)
    return found, sum(text.n_tokens + text.prompt_tokens for text in texts)


def _refused(candidates: Sequence[Candidate], texts: Sequence[Completion]) -> dict[str, str]:
    return {one.id: "refused" for one, text in zip(candidates, texts, strict=True) if text.refused}


def _sha256(request: Request) -> str:
    return f"sha256:{json_sha256([(turn.role, turn.text) for turn in request[0]])}"
