"""What attacks on a run share: secrets of random words, examples kept out of training, and the training itself."""

import time
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from fedloom.base.errors import ConfigError, ModelError
from fedloom.base.tree import flatten
from fedloom.contracts.examples import Chat, Example, chat
from fedloom.contracts.federated import Model, Task
from fedloom.contracts.language import Tokenizer
from fedloom.data.holdout import hold_out, normalised, owners
from fedloom.federated.rounds import State, begin, ended, step
from fedloom.runs.accounts import SPENDING
from fedloom.runs.directory import AUDIT_LOG, RunDirectory
from fedloom.runs.execute import RoundDone, run_files
from fedloom.runs.prepared import Prepared
from fedloom.runs.refining import Told, is_due, refined
from fedloom.runs.stage import Stage
from fedloom.runs.tuning import TuningRun

__all__ = [
    "attacked_files",
    "kept_out",
    "random_chat",
    "refuse_cut",
    "refuse_malicious",
    "refuse_several_models",
    "trained",
    "vocabulary",
]

_WORDS = 6  # of a canary's question, and of its answer
_HELD_SHARE = 0.2  # of each client's own examples


def refuse_several_models(run: TuningRun, command: str) -> None:
    """Refuse, before anything is loaded, a run whose result is not one shared model."""
    if not run.protocol.accounted:
        raise ConfigError(f"{command}: protocol is '{run.protocol.name}', allowed is 'federated'; override it.")
    if run.share != ".*":
        raise ConfigError(f"{command}: share is '{run.share}', one shared model is read; allowed is '.*'.")


def refuse_malicious(run: TuningRun, command: str) -> None:
    """Refuse a run that simulates malicious clients, where honest ones are measured."""
    if run.attack is not None:
        raise ConfigError(f"attack: found '{run.attack.name}'; {command} is of honest clients: leave the attack out.")


def attacked_files(run: TuningRun, source: str) -> dict[str, str]:
    """Return the files that an attack's directory starts with; without `run.toml`, so that no run resumes in it."""
    unused = (SPENDING, AUDIT_LOG)
    files = {name: text for name, text in run_files(run, source).items() if name not in unused}
    return {"audited.toml" if name == "run.toml" else name: text for name, text in files.items()}


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Return the tokens that read as words, special ones left out."""
    special = set(tokenizer.all_special_ids)
    texts = {str(tokenizer.decode([token])).strip() for token in range(len(tokenizer)) if token not in special}
    words = sorted(text for text in texts if text.isascii() and text.isalnum())
    if len(words) < 2:
        raise ModelError(f"audit: {len(words)} tokens of the tokenizer are words, allowed is 2 or more for canaries.")
    return words


def random_chat(words: Sequence[str], random: Random, client: str) -> Chat:
    """Return a canary: random words as question and answer."""
    question, answer = (" ".join(random.choices(words, k=_WORDS)) for _ in range(2))
    return chat(question, answer, client=client)


def refuse_cut(canaries: Sequence[Example], task: Task, model: Model) -> None:
    """Refuse canaries of which nothing is learnt."""
    cut = sum(not task.targets(task.encode(canary, model)) for canary in canaries)
    if cut:
        raise ConfigError(
            f"task.max_length: {cut} of {len(canaries)} canaries of {2 * _WORDS} words do not fit; raise it."
        )


def kept_out(
    owned: Mapping[str, Sequence[Example]], seed: int
) -> tuple[dict[str, tuple[Example, ...]], list[Example], list[Example]]:
    """Return the clients' examples without a fifth of each; those of them that might have been kept out; that fifth.

    No text is on both sides, so a text that several clients hold is never kept out; such texts are left out of the
    comparison, which would else be between two kinds of text.
    """
    examples = [example for own in owned.values() for example in own]
    places = iter(range(len(examples)))
    indices = {client: [next(places) for _ in own] for client, own in owned.items()}
    split = hold_out(indices, examples, fraction=_HELD_SHARE, minimum=1, seed=seed)
    train = {client: tuple(examples[index] for index in chosen) for client, chosen in split.train.items()}
    n_owners = owners(map(normalised, own) for own in owned.values())
    members = [one for own in train.values() for one in own if n_owners[normalised(one)] == 1]
    return train, members, [examples[index] for chosen in split.held.values() for index in chosen]


def trained(ready: Prepared, stage: Stage, directory: RunDirectory) -> Iterator[tuple[State, RoundDone, Told]]:
    """Yield the state after each round, refined where the run refines, with the round and what refinements told."""
    plan, start_s = stage.plan, time.monotonic()
    carrier = ready.run.engine.resolved(stage.work, n_clients=plan.clients_per_round).start(stage.work)
    state = begin(plan, flatten(ready.shared).cpu())
    while not ended(plan, state):
        state, record = step(plan, state, carrier, server=stage.server)
        told: Told = ()
        if is_due(ready, stage, state):
            state, told = refined(ready, stage, state, directory)
        yield state, RoundDone(0, 1, record, round(time.monotonic() - start_s, 3)), told
