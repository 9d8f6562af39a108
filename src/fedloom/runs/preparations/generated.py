"""Generated examples beside a client's own, in front of the training: federated learning by generative content.

FedGC (https://arxiv.org/abs/2312.05807): client k generates G_k by class budgets b_kc with sum B_k and trains on
D_k u G_k in every round; the protocol stays as it is. `own = false` trains on G_k alone, `local.p_generated` says how
often an element of a batch is generated, `local.pretrain` trains on G_k first.

Deviations: the published formulas, prompts and the rule for absent classes are not known. With guidance `mixed` a class
that a client has not is generated from words alone and marked; with `real` it gets nothing, and its part of the budget
goes to the others. `weigh` keeps as many samples as they are worth (`synthesis.worth`).

    prepared/AT_generated/CLIENT/manifest.jsonl   a line for each sample, dropped ones too; it never leaves the client
    prepared/AT_generated/CLIENT/cost.json        seconds, samples, tokens, bytes, size of the model, peak memory
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.files import write_atomic
from fedloom.base.plugin import Count, Fraction, default, plugin
from fedloom.completers.answer_file import write_cost
from fedloom.contracts.examples import Chat, Example
from fedloom.contracts.generation import Generator, Guidance, Place, Prompter
from fedloom.contracts.stages import Made, Owner, Preparation
from fedloom.contracts.synthesis import Allocator, Around, Candidate, Filter
from fedloom.synthesis.allocation import apportioned
from fedloom.synthesis.chain import Judged, counts, judged, refuse_blind, trained_on
from fedloom.synthesis.ordering import Cost, Ordered, Ordering, checked, published, size
from fedloom.synthesis.worth import worth

__all__ = ["GeneratedContent"]


@plugin("generated")
class GeneratedContent(Preparation):
    """Samples of each class by a generator, beside the client's own examples."""

    generator: Generator = field(default_factory=default(Generator, "gaussian"))
    """Who makes them."""
    labels: tuple[str, ...] = ()
    """The classes of the task, which the server publishes: a client cannot generate what it has never heard of. Left
    out: those of the public examples."""
    classes: Literal["published", "held"] = "published"
    """Whether all published classes are generated, or those alone that a client has."""
    by: str = "label"
    """Tag of the class."""
    total: Count = 100
    """Samples of each client."""
    allocator: Allocator = field(default_factory=default(Allocator, "equal"))
    """How they are dealt to the classes."""
    guidance: Guidance = "mixed"
    """What a sample starts from: words (`prompt`), a private example (`real`), or both (`mixed`)."""
    strength: Fraction = 0.5
    """Of `mixed`: how far from the private example a sample goes, 1 all the way."""
    real_strength: Fraction = 0.1
    """Of `real`."""
    prompts: Prompter = field(default_factory=default(Prompter, "multiple"))
    """The words."""
    filters: tuple[Filter, ...] = ()
    """What a generated conversation has to pass, one filter after another; pictures and rows have none."""
    own: bool = True
    """Whether the client's own examples are trained on, too."""
    shared: bool = False
    """Whether one set is generated at the server, for all clients, from words alone."""
    weigh: Literal["none", "own_loss"] = "none"
    """Whether a client keeps as many samples as its own examples' loss says that they are worth."""
    allow_remote: bool = False
    """Whether what guides, which is private, may go to another machine."""

    def check(self) -> None:
        """Refuse settings that contradict each other, and private guides for another machine."""
        guided = self.guidance != "prompt"
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError("labels: found one twice, allowed is each once.")
        if guided and not self.generator.data_guided:
            raise ConfigError(
                f"guidance: found '{self.guidance}', generator '{self.generator.name}' starts from no example; set "
                "guidance = 'prompt'."
            )
        if self.shared and (guided or self.classes == "held"):
            raise ConfigError("shared: found it with private guides or classes, allowed are 'prompt' and 'published'.")
        if guided and (host := self.generator.remote()) and not self.allow_remote:
            raise ConfigError(
                f"guidance: found '{self.guidance}', and generator '{self.generator.name}' runs on {host}: private "
                "examples would go there; take one on this machine, 'prompt', or set allow_remote = true."
            )
        if self.prompts.identity() and not self.generator.text_guided:
            raise ConfigError(
                f"prompts: found '{self.prompts.name}', which somebody is asked for, and generator "
                f"'{self.generator.name}' reads no words; leave it out."
            )
        refuse_blind("filters", self.filters, ("response",))

    def identity(self) -> str:
        """Return those of generator, words and filters."""
        parts = (self.generator, self.prompts, *self.filters)
        return json.dumps([part.identity() for part in parts])

    def trained_on_sets(self) -> Sequence[str]:
        """Return those of the filters."""
        return trained_on(self.filters)

    def brings_in(self) -> str:
        """Return what lets one example decide about several samples; "" where they depend on none."""
        if self.guidance != "prompt":
            return f"prepare: 'generated', whose samples start from private ones (guidance = '{self.guidance}'),"
        if self.classes == "held" or self.allocator.name != "equal":
            return "prepare: 'generated', which deals by what a client has (classes, allocator),"
        if self.weigh != "none" or not self.own:
            return "prepare: 'generated', which weighs samples by private ones or leaves those out (weigh, own),"
        steps = (found for step in self.filters if (found := step.brings_in()))
        return next((f"prepare: 'generated', whose {found}" for found in steps), "")

    def for_all(self, owner: Owner) -> Made | None:
        """Return the set that all clients share, where they do."""
        if not self.shared:
            return None
        made, told, sent = self._generated((), owner)
        return Made(made, told, sent)

    def __call__(self, examples: Sequence[Example], owner: Owner) -> Made:
        """Return the client's own examples and what was generated."""
        if self.shared:
            made, told, sent = list(owner.common), {"accepted": len(owner.common)}, dict[str, int]()
        else:
            made, told, sent = self._generated(examples, owner)
        kept = self._weighed(made, examples)
        told |= {"kept": len(kept)} if self.weigh != "none" else {}
        labels = published(self.labels, owner.public, self.by) if self.classes == "published" else ()
        got = {f"the {len(labels)} classes of the task": len(json.dumps(labels).encode())} if labels else {}
        if self.shared:
            got["generated examples"] = sum(map(size, made))
        return Made([*(examples if self.own else ()), *kept], told, sent, got)

    def _generated(
        self, own: Sequence[Example], owner: Owner
    ) -> tuple[list[Example], dict[str, int], Mapping[str, int]]:
        """Return what was generated for a client, its counts, and what left for it."""
        start_s, place = time.monotonic(), Place(owner.public, owner.folder)
        if owner.folder:
            owner.folder.mkdir(parents=True, exist_ok=True)
        ordering = self._ordering()
        held = {one.tags.get(self.by, "") for one in own}
        labels = published(self.labels, owner.public, self.by) if self.classes == "published" else sorted(held - {""})
        if unknown := sorted(held - set(labels)):
            raise DataError(
                f"prepare 'generated': client '{owner.name}' has class '{unknown[0]}', published are "
                f"{', '.join(labels[:8])}; add it to prepare.labels, or set prepare.by."
            )
        amounts = ordering.amounts(self.allocator, self.total, labels, own)
        asked = list(ordering.ordered(amounts, own, owner.seed, owner.name, place))
        found = self.generator([one.request for one in asked], place)
        samples = checked(found.samples, asked, own or owner.public, self.generator, self.by)
        steps = self._judged(asked, samples)
        if asked and all(step.reason for step in steps):
            raise DataError(f"generator '{self.generator.name}': returned nothing that can be used; ask another one.")
        if owner.folder:
            text = self._manifest(owner, asked, steps, samples)
            write_atomic(owner.folder / "manifest.jsonl", text)
            cost = Cost.of(samples, found.tokens, self.generator, place)
            write_cost(owner.folder / "cost.json", cost, time.monotonic() - start_s)
        kept = [one for one, step in zip(samples, steps, strict=True) if one is not None and not step.reason]
        return kept, counts(steps), found.sent

    def _ordering(self) -> Ordering:
        strength = self.real_strength if self.guidance == "real" else self.strength
        return Ordering(prompter=self.prompts, by=self.by, guidance=self.guidance, strength=strength)

    def _judged(self, asked: Sequence[Ordered], samples: Sequence[Example | None]) -> list[Judged]:
        """Return the verdicts on each sample; those on what did not come are that it did not."""
        candidates = [_candidate(at, one) for at, one in enumerate(samples)]
        lost = {str(at): "nothing" for at, one in enumerate(samples) if one is None}
        return judged(candidates, lost, self.filters, Around())

    def _weighed(self, made: Sequence[Example], own: Sequence[Example]) -> list[Example]:
        """Return as many samples of each class as all are worth to this client, the first ones."""
        if self.weigh == "none" or not made:
            return list(made)
        labels = sorted({one.tags[self.by] for one in (*made, *own)})
        of_class = Counter(one.tags[self.by] for one in made)
        share = round(worth(made, own, labels, self.by) * len(made))
        left = dict(zip(of_class, apportioned(share, [*of_class.values()]), strict=True))
        kept: list[Example] = []
        for one in made:
            left[one.tags[self.by]] -= 1
            kept += [one] if left[one.tags[self.by]] >= 0 else []
        return kept

    def _manifest(
        self, owner: Owner, asked: Sequence[Ordered], steps: Sequence[Judged], samples: Sequence[Example | None]
    ) -> str:
        model = f"{self.generator.name} {hashlib.sha256(self.generator.identity().encode()).hexdigest()[:16]}"
        lines = [
            {
                "id": f"{owner.name}/{at}",
                "client": owner.name,
                "class": one.request.label,
                "prompt": one.request.prompt,
                "guidance": self.guidance,
                "fallback": one.fallback,
                "source_private_id": one.source,
                "strength": one.request.strength,
                "seed": one.request.seed,
                "model": model,
                "hash": "" if sample is None else hashlib.sha256(sample.key.encode()).hexdigest(),
                "filters": step.record,
                "reason": step.reason,
            }
            for at, (one, step, sample) in enumerate(zip(asked, steps, samples, strict=True))
        ]
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _candidate(at: int, one: Example | None) -> Candidate:
    question, answer = (one.prompt[-1].text, one.reference) if isinstance(one, Chat) else ("", "")
    return Candidate(id=str(at), document="", instruction=question, response=answer)
