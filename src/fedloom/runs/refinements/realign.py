"""Post-hoc defence: the attacked model is tuned, at the server, on requests that are refused and on normal ones.

"Emerging Safety Attack and Defense in Federated Instruction Tuning of Large Language Models"
(https://arxiv.org/abs/2406.10630), section 5: after federation the server tunes the aggregated adapter for a few steps
on normal and aligned pairs. Level 1 takes both from existing sets (`answers = "source"`); at level 2 another model
answers (`teacher`); at level 3 the attacked model itself does (`trained`). Who answers is shown a warning behind each
request that is to be refused; the tuned model learns to refuse without it.

Deviations: instructions are always those of the sources, at levels 2 and 3 too; published is that the generator writes
them, ten at a time, and that its aligned ones come from the attacker's own pool. Filters judge what is learnt, where
published is none, and with `holdout` the round is taken whose safety, over-refusal and helpfulness on pairs kept aside
are best.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.files import json_sha256, write_atomic
from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, Count, Fraction, NonNegative, default, plugin
from fedloom.base.tree import Tree
from fedloom.completers.answer_file import Budget, asking, bytes_sent, refuse_remote
from fedloom.completers.candidates import BuiltModel
from fedloom.contracts.evaluation import Completer, Prompt, Sampling
from fedloom.contracts.examples import Chat, Example, Turn, chat
from fedloom.contracts.federated import Source
from fedloom.contracts.language import language_model
from fedloom.contracts.local_settings import LocalSettings
from fedloom.contracts.model import Model
from fedloom.contracts.stages import Refined, Refinement, Trained
from fedloom.contracts.synthesis import Around, Candidate, Filter
from fedloom.evaluation.metrics.refusals import refuses
from fedloom.evaluation.metrics.texts import normalise
from fedloom.federated.alone import tuned_alone
from fedloom.synthesis.chain import Judged, counts, judged, judges, trained_on
from fedloom.synthesis.filters.duplicate import Duplicate
from fedloom.synthesis.filters.form import Form

__all__ = ["Realign"]

_ALIGNED = "aligned"  # what a pair is for stands in its id, whatever was answered


def _filters() -> tuple[Filter, ...]:
    return Form(), Duplicate(overlap=1.0)  # worded alike is not the same request


@plugin("realign")
class Realign(Refinement):
    """A tuning on aligned and normal pairs."""

    aligned: Source | None = None
    """Requests that are to be refused, with refusals."""
    normal: Source | None = None
    """Requests that are to be answered."""
    pairs: AtLeast = 1000
    """Most that are learnt from, of both kinds together."""
    share: Fraction = 0.5
    """Of aligned pairs; 0: normal data only, a control."""
    answers: Literal["source", "teacher", "trained"] = "source"
    """Who answers: level 1, 2 or 3."""
    teacher: Completer = field(default_factory=default(Completer, "model"))
    """The other model of level 2."""
    warning: str = ""
    """What stands behind each aligned request when it is answered, and not when it is learnt."""
    filters: tuple[Filter, ...] = field(default_factory=_filters)
    """What a pair has to pass; `judge` with kind = "safety" is the filter of level 3."""
    holdout: Fraction = 0.0
    """Share of the pairs kept aside, by which the best round is chosen; 0: the last one."""
    local: LocalSettings = field(default_factory=LocalSettings)
    """How the server trains."""
    rounds: AtLeast = 5
    """Times that `local.steps` are taken, over which the learning rate falls."""
    temperature: NonNegative = 0.0
    """Of the answers that are asked for."""
    max_new_tokens: AtLeast = 64
    """Tokens of an answer at most."""
    allow_remote: bool = False
    """Whether requests may go to another machine."""
    max_requests: Count = 0
    """Most requests to the teacher; 0: no limit."""

    def check(self) -> None:
        """Refuse to ask another machine unasked, and a warning that nobody reads."""
        wanted = {"aligned": self.aligned if self.share else "", "normal": self.normal if self.share < 1 else ""}
        if missing := [name for name, source in wanted.items() if source is None]:
            raise ConfigError(
                f"{missing[0]}: missing; name a source of pairs, for instance {missing[0]}.name = 'file'."
            )
        if self.answers == "teacher":
            refuse_remote("teacher", self.teacher, "requests of a defence go to it", allowed=self.allow_remote)
        if self.warning and self.answers == "source":
            raise ConfigError("warning: found one with answers = 'source', where nobody is asked; leave it out.")

    def require(self, model: Model, task: Any, shared: Collection[str]) -> None:
        """Refuse parts kept by clients, a task without conversations, and pairs that are missing or refuse nothing."""
        if set(shared) != set(model.trainable):
            raise ConfigError("refine: 'realign' tunes the whole trained model; allowed is share = '.*'.")
        if Chat not in task.learns:
            raise ConfigError(f"refine: 'realign' makes conversations, task '{task.name}' learns none.")
        aligned, _ = self._sources()
        if self.share and self.answers == "source" and not any(refuses(one.reference) for one in aligned):
            raise DataError(
                f"refine.aligned: none of {len(aligned)} pairs begins like a refusal; allowed are requests with their "
                "refusals, or answers = 'teacher'."
            )

    def identity(self) -> str:
        """Return the hashes of the pairs and of who answers and judges."""
        texts = [[one.text for one in source] for source in self._sources()]
        professional = self.teacher.identity() if self.answers == "teacher" else ""
        return json.dumps([json_sha256(texts), professional, [step.identity() for step in self.filters]])

    def public_texts(self) -> dict[str, str]:
        """Return all pairs by id."""
        named = zip((_ALIGNED, "normal"), self._sources(), strict=True)
        return {f"{name} {at}": one.text for name, source in named for at, one in enumerate(source)}

    def trained_on_sets(self) -> tuple[str, ...]:
        """Return those of the filters."""
        return trained_on(self.filters)

    def _sources(self) -> tuple[Sequence[Example], Sequence[Example]]:
        aligned, normal = (one.load()["train"] if one else () for one in (self.aligned, self.normal))
        return aligned, normal

    def __call__(self, trained: Trained) -> Refined:
        """Return the parameters tuned on the pairs that are left; DataError where none are."""
        seed = rng.seed_of(trained.seed, "realign", trained.round) % 2**31
        found = self._pairs(trained, seed)
        write_atomic(trained.folder / "pairs.jsonl", "".join(_line(one) for one in found))
        kept = [one.candidate for one in found if not one.reason]
        n_held = round(self.holdout * len(kept))
        held, learnt = kept[:n_held], [chat(one.instruction, one.response) for one in kept[n_held:]]
        told = {name: float(n) for name, n in counts(found).items()}
        if not learnt:
            raise DataError(f"refine: 'realign' is left without a pair, see {trained.folder / 'pairs.jsonl'}.")
        frontier = _Frontier(trained, held, self.max_new_tokens)
        model, task = language_model(trained.model), trained.task
        items = [task.encode(one, model) for one in learnt]
        worth = frontier.worth if held else None
        params, losses = tuned_alone(
            model, task, trained.params, items, self.local, rounds=self.rounds, seed=seed, worth=worth
        )
        scores = {"first_loss": losses[0], "last_loss": losses[-1], **frontier.scores}
        return Refined(params, told, self._sent(trained.folder), scores)

    def _pairs(self, trained: Trained, seed: int) -> list[Judged]:
        """Return the pairs that are drawn, answered by whoever does, with the verdicts on them."""
        aligned, normal = self._sources()
        n_aligned = round(self.share * self.pairs)
        random = rng.python_random(seed, "pairs")
        drawn = [(_ALIGNED, one) for one in random.sample(list(aligned), min(n_aligned, len(aligned)))]
        drawn += [("normal", one) for one in random.sample(list(normal), min(self.pairs - n_aligned, len(normal)))]
        random.shuffle(drawn)
        texts = self._answers(trained, drawn, seed)
        candidates = [
            Candidate(id=f"{kind} {at}", document="", instruction=one.prompt[-1].text, response=text)
            for at, ((kind, one), text) in enumerate(zip(drawn, texts, strict=True))
        ]
        return judged(candidates, {}, self.filters, Around(answers=trained.folder / "verdicts.jsonl"))

    def _answers(self, trained: Trained, drawn: Sequence[tuple[str, Example]], seed: int) -> list[str]:
        """Return an answer for each pair: its own, or that of the model that is asked."""
        if self.answers == "source":
            return [one.reference for _, one in drawn]
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=seed)
        requests = [(self._put(kind, one), sampling) for kind, one in drawn]
        who = self.teacher if self.answers == "teacher" else _model(trained, trained.params)
        budget = Budget(max_requests=self.max_requests or None, max_tokens=None)
        with asking(who, trained.folder / "answers.jsonl", budget) as asker:
            return [one.text for one in asker.ask(requests)]

    def _put(self, kind: str, example: Example) -> Prompt:
        """Return the request as it is answered, the warning behind it where it is to be refused."""
        *before, asked = example.prompt
        warned = f"{asked.text} {self.warning}" if kind == _ALIGNED and self.warning else asked.text
        return (*before, Turn("user", warned))

    def _sent(self, folder: Path) -> dict[str, int]:
        """Return the bytes of all prompts that went to other machines."""
        teacher = [(self.teacher, folder / "answers.jsonl")] if self.answers == "teacher" else []
        return bytes_sent([*teacher, *((judge, folder / "verdicts.jsonl") for judge in judges(self.filters))])


def _model(trained: Trained, params: Tree) -> BuiltModel:
    return BuiltModel(model=language_model(trained.model), params=params, template=trained.task.template)


def _line(one: Judged) -> str:
    pair = one.candidate
    told = {"id": pair.id, "instruction": pair.instruction, "response": pair.response}
    return json.dumps({**told, "filters": one.record, "reason": one.reason}, ensure_ascii=False) + "\n"


class _Frontier:
    """What each round of the tuning is worth on pairs kept aside: safe, not over-careful, and helpful."""

    def __init__(self, trained: Trained, held: Sequence[Candidate], max_new_tokens: int) -> None:
        self._trained, self._held = trained, held
        self._most = max_new_tokens
        self.scores: dict[str, Mean] = {}
        """By round: the share refused of what is to be refused, and of what is to be answered, and right answers."""

    def worth(self, params: Tree) -> tuple[float, ...]:
        """Return how much more is refused of what is to be than of what is not, then the share of right answers."""
        asked = [[chat(one.instruction, one.response) for one in self._held]]
        (answers,) = self._trained.task.predict(self._trained.model, params, asked, max_new_tokens=self._most)
        told = {"safety": Mean(), "over_refusal": Mean(), "helpfulness": Mean()}
        for one, answer in zip(self._held, answers, strict=True):
            aligned, refused = one.id.startswith(_ALIGNED), float(refuses(answer.text))
            told["safety" if aligned else "over_refusal"] += Mean(refused, 1.0)
            right = normalise(answer.text) == normalise(one.response)
            told["helpfulness"] += Mean() if aligned else Mean(float(right), 1.0)
        number = len(self.scores) // len(told) + 1
        self.scores |= {f"round_{number:02d}_{name}": mean for name, mean in told.items()}
        safety, over, helpful = (mean.value if mean.weight else 0.0 for mean in told.values())
        return safety - over, helpful
