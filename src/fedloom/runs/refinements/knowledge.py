"""Distillation at the server: the trained model asks, a professional model answers, the trained model learns.

KnowledgeSG (https://arxiv.org/abs/2410.05725, section 3): an adapter that was tuned under differential privacy writes
questions such as its owners ask; filters judge them; a professional model answers; the adapter is tuned on what is
left and goes back. With `refine_every` the cycle repeats, over as many clients as the run has. What the server does
with what a mechanism let out is processing after it: epsilon stays that of the training.

Deviations: published is one client and one cycle. No private record is shown to any model at the server: what a prompt
shows are public seeds. The quality filter of the paper is not in its code: filters here are a chain with reasons.
Published answers are taken on trust; `samples` with the filter `agreement` asks more than once.

    refined/AT/questions.jsonl    what the generator has answered, so that nothing is asked twice
    refined/AT/answers.jsonl      what the professional has answered
    refined/AT/verdicts.jsonl     what completers that filters ask have answered
    refined/AT/pairs.jsonl        every question with its answer and the verdicts, dropped ones too
    refined/AT/cost.json          calls, tokens, seconds and peak memory of the last process
"""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.files import write_atomic
from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, Count, Fraction, NonNegative, Positive, default, plugin
from fedloom.completers.answer_file import Budget, Counts, asking, bytes_sent, refuse_remote, write_cost
from fedloom.completers.candidates import BuiltModel
from fedloom.completers.model import LocalModel
from fedloom.contracts.evaluation import Completer, Sampling
from fedloom.contracts.examples import Chat, chat
from fedloom.contracts.federated import Task
from fedloom.contracts.language import language_model
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.model import Model
from fedloom.contracts.stages import Refined, Refinement, Trained
from fedloom.contracts.synthesis import Around, Filter, PoolRow, Questioner
from fedloom.evaluation.difficulty import difficulties
from fedloom.federated.alone import tuned_alone
from fedloom.synthesis.chain import judges, refuse_blind, trained_on
from fedloom.synthesis.distilling import Answering, Asking, Distilled, answered, asked, chosen
from fedloom.synthesis.filters.duplicate import Duplicate
from fedloom.synthesis.filters.form import Form
from fedloom.synthesis.pool import Pool, read_pool
from fedloom.synthesis.questioning import questioning, shown, teaching
from fedloom.tasks.soft import Softened, soft_items

__all__ = ["Knowledge"]


def _question_filters() -> tuple[Filter, ...]:
    return Form(response_words=(0, 1024)), Duplicate()


def _filters() -> tuple[Filter, ...]:
    return (Form(),)


@plugin("knowledge")
class Knowledge(Refinement):
    """Questions of the trained model, answers of a professional one, and a tuning on both."""

    questioner: Questioner = field(default_factory=default(Questioner, "free"))
    """How the generator is brought to ask."""
    seeds: str = ""
    """File of public instructions with responses, which some questioners show; `world` takes public ones."""
    generator: Literal["trained", "base"] = "trained"
    """Who asks: the model as it was trained, or as it was before, for comparison."""
    questions: AtLeast = 1000
    """Questions that are written."""
    keep: Count = 500
    """Most of them that are answered, drawn from those that pass; 0: all."""
    answers: Literal["teacher", "generator", "draft"] = "teacher"
    """Who answers: the professional; the generator, for comparison; or what the generator wrote beside the question."""
    teacher: Completer = field(default_factory=default(Completer, "model"))
    """The professional model."""
    teaching: str = "plain"
    """How a question is put to it: `plain`, `medicine`, `finance`, or a TOML file with `question`, perhaps `system`."""
    shown: Count = 0
    """Public seeds with responses that each question is put after."""
    samples: AtLeast = 1
    """Answers drawn for each question, of which the first is learnt; more need a temperature."""
    question_filters: tuple[Filter, ...] = field(default_factory=_question_filters)
    """What a question has to pass before it is answered."""
    filters: tuple[Filter, ...] = field(default_factory=_filters)
    """What a pair has to pass."""
    temperature: NonNegative = 1.0
    """Of questions; 0 asks the same again and again."""
    top_p: Fraction = 1.0
    """Share of probability of which tokens are drawn."""
    max_question_tokens: AtLeast = 128
    """Tokens of a question at most."""
    answer_temperature: NonNegative = 0.0
    """Of the professional's answers."""
    max_answer_tokens: AtLeast = 256
    """Tokens of an answer at most."""
    local: LocalSettings = field(default_factory=LocalSettings)
    """How the model is tuned on the pairs, as clients are tuned on theirs."""
    rounds: AtLeast = 1
    """Times that `local.steps` are taken, over which the learning rate falls."""
    soft: Fraction = 0.0
    """Share of the loss that comes from the professional's probabilities of each token, besides its words; 0: none."""
    soft_temperature: Positive = 1.0
    """What logits are divided by before they are compared."""
    soft_tokens: AtLeast = 64
    """The likeliest tokens that are kept of its probabilities; all others count as one."""
    batch: AtLeast = 16
    """Questions that the generator writes together."""
    allow_remote: bool = False
    """Whether questions may go to another machine."""
    max_requests: Count = 0
    """Most requests to the professional in a cycle; 0: no limit."""
    max_tokens: Count = 0
    """Most tokens of its prompts and answers in a cycle; 0: no limit."""

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        if self.samples > 1 and not self.answer_temperature:
            raise ConfigError(
                f"samples: found {self.samples} with answer_temperature 0, which draws the same answer each time; set "
                "a temperature above 0."
            )
        others = ("others",) if self.samples > 1 else ()
        refuse_blind("question_filters", self.question_filters, ("response",) * self.questioner.drafts)
        refuse_blind("filters", self.filters, ("response", *others))
        if self.keep > self.questions:
            raise ConfigError(f"keep: found {self.keep}, allowed are at most questions = {self.questions}.")
        if self.local.curriculum > self.rounds:
            raise ConfigError(
                f"local.curriculum: found {self.local.curriculum}, allowed are at most rounds = {self.rounds}."
            )
        needed = max(self.questioner.shows, self.shown)
        if needed and not self.seeds:
            raise ConfigError(
                f"seeds: missing; '{self.questioner.name}' with shown = {self.shown} takes {needed} public examples."
            )
        if self.answers == "draft" and not self.questioner.drafts:
            raise ConfigError(
                f"answers: found 'draft', which questioner '{self.questioner.name}' does not write; take another."
            )
        if self.answers == "teacher":
            what = "its prompts hold what a model that was trained on private data wrote"
            refuse_remote("teacher", self.teacher, what, allowed=self.allow_remote)
        apart = self.answers != "teacher" or self.shown or self.teaching != "plain"
        if self.soft and (apart or not isinstance(self.teacher, LocalModel)):
            raise ConfigError(
                f"soft: found {self.soft:g} with answers = '{self.answers}', teacher '{self.teacher.name}', teaching "
                f"'{self.teaching}' and shown = {self.shown}; allowed is 0, or the teacher 'model', whose "
                "probabilities are at hand, asked the plain question as the learner is."
            )
        teaching(self.teaching)

    def require(self, model: Model, task: Any, shared: Collection[str]) -> None:
        """Refuse parts kept by clients, a task without conversations, and files that are missing or too short."""
        if set(shared) != set(model.trainable):
            raise ConfigError(
                "refine: 'knowledge' tunes the whole trained model, of which clients keep a part; allowed is share = "
                "'.*'."
            )
        if Chat not in task.learns:
            raise ConfigError(f"refine: 'knowledge' makes conversations, task '{task.name}' learns none.")
        self.identity()
        if self.seeds:
            self.questioner.asks(self._seeds().rows, self.questions, 0)
        if self.soft and isinstance(self.teacher, LocalModel) and self.teacher.template != task.template:
            raise ConfigError(
                f"soft: the teacher has template '{self.teacher.template.name}', the task '{task.template.name}'; "
                "allowed is one for both, as its probabilities are taken in the task's."
            )

    def identity(self) -> str:
        """Return the hashes of seeds, prompts and professional."""
        professional = self.teacher.identity() if self.answers == "teacher" else ""
        seeds = self._seeds().sha256 if self.seeds else ""
        steps = [step.identity() for step in (*self.question_filters, *self.filters)]
        return json.dumps([seeds, questioning().sha256, teaching(self.teaching).sha256, professional, steps])

    def public_texts(self) -> dict[str, str]:
        """Return the pairs of the seeds by id."""
        return self._seeds().pairs if self.seeds else {}

    def trained_on_sets(self) -> tuple[str, ...]:
        """Return those of the filters."""
        return trained_on((*self.question_filters, *self.filters))

    def _seeds(self) -> Pool:
        pool = read_pool(self.seeds, documents=False)
        needed = max(self.questioner.shows, self.shown)
        if len(pool.rows) < needed:
            raise DataError(f"{self.seeds}: has {len(pool.rows)} rows, {needed} are shown; add rows, or show fewer.")
        return pool

    def __call__(self, trained: Trained) -> Refined:
        """Return the parameters tuned on the pairs that are left; none left is refused with DataError."""
        start_s, seed = time.monotonic(), rng.seed_of(trained.seed, "knowledge", trained.round) % 2**31
        generator = self._generator(trained)
        made, calls = self._distilled(trained, generator, seed)
        facts = {"generator": generator.identity(), "seed": seed, "identity": self.identity()}
        write_atomic(trained.folder / "pairs.jsonl", made.lines(facts))
        if not made.pairs:
            dropped = ", ".join(f"{name} {n}" for name, n in made.counts.items() if "rejected" in name)
            raise DataError(
                f"refine: 'knowledge' is left without a pair ({dropped}); see {trained.folder / 'pairs.jsonl'}, then "
                "change filters or questioner."
            )
        examples = [chat(pair.instruction, pair.response) for pair in made.pairs]
        task, items = self._learnt(trained, examples)
        model, start = trained.model, trained.params
        params, losses = tuned_alone(model, task, start, items, self.local, rounds=self.rounds, seed=seed)
        write_cost(trained.folder / "cost.json", calls, time.monotonic() - start_s)
        scores = {"first_loss": losses[0], "last_loss": losses[-1], **self._ifd(trained, examples)}
        return Refined(params, made.counts, self._sent(trained.folder), scores)

    def _learnt(self, trained: Trained, examples: Sequence[Chat]) -> tuple[Task, Sequence[Any]]:
        """Return what is learnt, and from which items: the answers, and with `soft` what the professional thinks."""
        model = language_model(trained.model)
        if not self.soft:
            return trained.task, [trained.task.encode(example, model) for example in examples]
        if not isinstance(self.teacher, LocalModel):  # refused before, but a field is no proof
            raise ConfigError("soft: needs a teacher on this machine whose probabilities are known: completer 'model'.")
        teacher = language_model(self.teacher.model.build(seed=0, device=model.device))
        most, temperature = self.soft_tokens, self.soft_temperature
        items = soft_items(trained.task, model, teacher, examples, most=most, temperature=temperature)
        return Softened(trained.task, self.soft, temperature), items

    def _generator(self, trained: Trained) -> BuiltModel:
        model = language_model(trained.model)
        params = trained.params if self.generator == "trained" else model.trainable
        return BuiltModel(model=model, params=params, template=trained.task.template, batch=self.batch)

    def _distilled(self, trained: Trained, generator: BuiltModel, seed: int) -> tuple[Distilled, Counts]:
        seeds = self._seeds().rows if self.seeds else ()
        around = Around(seeds, trained.folder / "verdicts.jsonl")
        writing = Asking(
            questioner=self.questioner,
            seeds=seeds,
            sampling=self._sampling(self.max_question_tokens, self.temperature),
            filters=self.question_filters,
            seed=seed,
        )
        with asking(generator, trained.folder / "questions.jsonl") as asker:
            questions = asked(writing, self.questions, asker, around)
        places = chosen(questions, self.keep, seed)
        candidates = [questions[at].judged.candidate for at in places]
        budget = Budget(max_requests=self.max_requests or None, max_tokens=self.max_tokens or None)
        answerer = self.teacher if self.answers == "teacher" else generator
        answering = self._answering(seeds, seed)
        with asking(answerer, trained.folder / "answers.jsonl", budget) as asker:
            texts = asker.ask([request for one in candidates for request in answering.requests(one)])
        # Judged once the professional is let go: filters may load models of their own.
        found, tokens = answered(candidates, texts, answering, around)
        return Distilled(questions, dict(zip(places, found, strict=True)), tokens), asker.counts

    def _answering(self, seeds: Sequence[PoolRow], seed: int) -> Answering:
        (examples,) = shown(seeds, self.shown, 1, seed)
        return Answering(
            teaching=teaching(self.teaching),
            sampling=self._sampling(self.max_answer_tokens, self.answer_temperature),
            samples=0 if self.answers == "draft" else self.samples,
            filters=self.filters,
            seed=seed,
            shown=examples,
        )

    def _sampling(self, most: int, temperature: float) -> Sampling:
        return Sampling(max_new_tokens=most, temperature=temperature, top_p=self.top_p)

    def _sent(self, folder: Path) -> dict[str, int]:
        """Return the bytes of all prompts that went to other machines, those of filters too."""
        asked = [(self.teacher, folder / "answers.jsonl")] if self.answers == "teacher" else []
        steps = (*self.question_filters, *self.filters)
        return bytes_sent([*asked, *((judge, folder / "verdicts.jsonl") for judge in judges(steps))])

    def _ifd(self, trained: Trained, examples: Sequence[Chat]) -> dict[str, Mean]:
        """Return how much the questions help the untuned model to say the answers, and the share that is not told."""
        found = difficulties(language_model(trained.model), trained.task, trained.model.trainable, examples)
        ratios = [one.scores["ifd"] for one in found]
        dropped = Mean(sum(ratio.weight == 0 for ratio in ratios), len(ratios))
        return {"ifd": sum(ratios, Mean()), "ifd_dropped": dropped}
