"""What a curious server reads of one client's texts in a run's split training: T1 to T5 of the specification, 5.4.

The client is the run's first, its texts some of those that it trains on; the attacker's own are those of the others.
Where the run has ended the client's weights are those of its result, and the attacker knows them, as whoever merges
client parts does, or only the base, as anybody does of an open model. Both are told.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError
from fedloom.base.mean import Mean
from fedloom.base.plugin import AtLeast, check_ranges
from fedloom.base.tree import Tree
from fedloom.contracts.language import Encoded, LanguageModel, language_model
from fedloom.models.causal_lm import CausalLM
from fedloom.runs.prepared import prepare
from fedloom.runs.split_answers import split_settings, trained_in
from fedloom.runs.tuning import TuningRun
from fedloom.split.audit.gradients import embedding_gradient, logit_gradient
from fedloom.split.audit.inverter import Inverter, random_texts
from fedloom.split.audit.labels import read_labels
from fedloom.split.audit.search import searched
from fedloom.split.audit.target import Target, recovered

__all__ = ["SENTENCE", "AuditSettings", "audit_split", "told"]

SENTENCE = (
    "The server could still reconstruct text from activations when it knows the client weights; measured recovery on "
    "your model: run `fedloom split audit`."
)
"""What has to stand wherever privacy of split training is described."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How much is attacked, and how long."""

    texts: AtLeast = 4
    """Texts of the client that are attacked."""
    most_tokens: AtLeast = 48
    """Tokens of each at most."""
    inverter_steps: AtLeast = 400
    label_steps: AtLeast = 150

    def __post_init__(self) -> None:
        check_ranges(self)


def audit_split(run: TuningRun, settings: AuditSettings, result: Path | None = None) -> dict[str, Any]:
    """Return what each attack reads; `result` is the run's directory where it has ended.

    Raises ConfigError for a run of another protocol.
    """
    split = split_settings(run)
    if isinstance(run.model, CausalLM):  # an attacker computes as exactly as it likes
        run = replace(run, model=replace(run.model, dtype="float32"))
    ready = prepare(run)
    model = language_model(ready.model)
    if model.both_ways:
        raise ConfigError(
            "model.attends: found 'prefix_lm', allowed is 'causal': the search reads a text token by token, which the "
            "states of prompts read in both directions do not admit; that is no protection, it is not measured."
        )
    client, *others = ready.shards
    trained = trained_in(run, model, result, client) if result else {}
    params = model.trainable | trained
    texts = _some(ready.shards[client].items, settings)
    theirs = [text for other in others for text in ready.shards[other].items] or list(ready.shards[client].items)
    target = Target(model, run.task, split.cuts[0], split.wire, params, params, texts, split.defences)
    knowing = {"the client's weights known": target}
    if trained:
        knowing["the base alone known"] = replace(target, known=dict(model.trainable))
    return {
        "client": client,
        "cut": str(split.cuts[0]),
        "wire": split.wire,
        "defences": asdict(split.defences),
        "texts": len(texts),
        "tokens": sum(len(text.tokens_T) for text in texts),
        "loss": _loss(run, model, params, texts).value,
        "T1": asdict(embedding_gradient(target)),
        "T2": asdict(logit_gradient(target)),
        **{name: _attacks(one, theirs, settings, run.seed) for name, one in knowing.items()},
        "sentence": SENTENCE,
    }


def _attacks(target: Target, theirs: Sequence[Encoded], settings: AuditSettings, seed: int) -> dict[str, Any]:
    ahead, true = target.capture.ahead, target.tokens
    like = Inverter.trained(target, theirs, steps=settings.inverter_steps, seed=seed)
    blind = Inverter.trained(target, random_texts(target, theirs, seed=seed), steps=settings.inverter_steps, seed=seed)
    return {
        "T3": asdict(recovered(searched(target, like), true)),
        "T4, texts like these": asdict(recovered(like.read(ahead), true)),
        "T4, random tokens": asdict(recovered(blind.read(ahead), true)),
        "T5": asdict(read_labels(target, steps=settings.label_steps)),
    }


def _some(items: Sequence[Encoded], settings: AuditSettings) -> tuple[Encoded, ...]:
    """Return texts to attack, of long ones their ends; those without a target are of no use."""
    most = settings.most_tokens
    cut = [Encoded(one.tokens_T[-most:], one.supervised_T[-most:]) for one in items if not one.cuts]
    found = tuple(one for one in cut if bool(one.supervised_T[1:].any()))[: settings.texts]
    if not found:
        raise ConfigError(
            f"--most-tokens: found {most}; no target of the first client lies behind the first of that many last "
            "tokens of a text; raise it."
        )
    return found


def _loss(run: TuningRun, model: LanguageModel, params: Tree, texts: Sequence[Encoded]) -> Mean:
    (scores,) = run.task.scores(model, params, [texts])
    return sum((one["loss"] for one in scores), Mean())


def told(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an audit found, a line each."""
    defended = "".join(f", {name} {value:g}" for name, value in found["defences"].items() if value)
    yield (
        f"{found['texts']} texts, {found['tokens']} tokens of client '{found['client']}', cut {found['cut']}, "
        f"{found['wire']} on the wire{defended}; loss of the model on them {found['loss']:.3f}"
    )
    one, two = found["T1"], found["T2"]
    yield (
        f"T1 embedding's gradient: a server that had it would read the set of tokens with precision "
        f"{one['precision']:.3f}, recall {one['recall']:.3f} (tied head: {one['tied_hit_share']:.3f}); "
        f"{one['messages_with_it']} of the messages hold it"
    )
    yield (
        f"T2 gradient of logits: a server that had it would read {two['labels']:.3f} of the targets; "
        f"{two['messages_with_it']} of the messages hold it"
    )
    for name in ("the client's weights known", "the base alone known"):
        for attack, value in found.get(name, {}).items():
            words = ", ".join(f"{_WORDS[key]} {number:.3f}" for key, number in value.items())
            yield f"{attack} ({name}), {_ATTACKS[attack[:2]]}: {words}"
    yield found["sentence"]


_WORDS = {"tokens": "tokens read", "rouge_l": "ROUGE-L", "guessed": "without the attack"}
_ATTACKS = {"T3": "search", "T4": "learned inverter", "T5": "targets from gradients"}
