"""Answers of a split run's result: tokens and logits at a client, the middle of the model in a session at its server.

Nobody is asked for the whole model. The adapter that a run ends with is handed to its clients as a file, and each side
takes its own part of it.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.files import file_name
from fedloom.base.tree import Tree
from fedloom.contracts.examples import Chat, Turn
from fedloom.contracts.language import LanguageModel, language_model
from fedloom.models.causal_lm import CausalLM
from fedloom.runs.arrangements.split import Split
from fedloom.runs.prepared import load_model
from fedloom.runs.tuning import TuningRun
from fedloom.split.answering import Exchanges, through_server
from fedloom.split.body import Middle
from fedloom.split.carrier import SplitSettings
from fedloom.split.ends import Ends
from fedloom.split.sessions import Sessions
from fedloom.split.wire import WIRES

__all__ = ["adapter_in", "answered", "answered_here", "sessions_of", "split_settings", "trained_in"]


def split_settings(run: TuningRun) -> SplitSettings:
    """Return how a run splits its model; ConfigError for a run of another protocol."""
    if not isinstance(run.protocol, Split):
        raise ConfigError(f"protocol: found '{run.protocol.name}', allowed is 'split', whose model is in two places.")
    return run.protocol.settings


def trained_in(run: TuningRun, model: LanguageModel, folder: Path, client: str) -> Tree:
    """Return the trained parameters that a run's directory has of a client: its own, or those of all."""
    return _adapter(run, model, adapter_in(folder, client))


def adapter_in(folder: Path, client: str) -> Path:
    """Return where a run's directory has a client's adapter: that of all, or its own; ConfigError for a stranger."""
    every = folder / "adapters"
    if not every.is_dir():
        return folder / "adapter"
    known = sorted(place.name for place in every.iterdir())
    if not client or file_name(client) not in known:
        raise ConfigError(f"--client: found '{client}', allowed is one of {', '.join(known)}, each with its own.")
    return every / file_name(client)


def _adapter(run: TuningRun, model: LanguageModel, folder: Path) -> Tree:
    if not isinstance(run.model, CausalLM):
        raise ConfigError(f"model: found '{run.model.name}', allowed is 'causal_lm'.")
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no adapter; a run writes it when it ends, and its server hands it out.")
    return run.model.load_adapter(model, str(folder))


def sessions_of(
    run: TuningRun, folder: Path, model: LanguageModel | None = None, *, most_tokens: int = 1 << 16, idle_s: float = 300
) -> Sessions:
    """Return what serves the middle of a run's result to its clients; ConfigError for clients of several cuts."""
    settings = split_settings(run)
    cut, model = settings.one_cut(), model or language_model(load_model(run).model)

    @cache
    def params(client: str) -> Tree:
        return model.trainable | trained_in(run, model, folder, client)

    wire = WIRES[settings.wire]
    return Sessions(Middle.of(model, [cut]), params, wire, most_tokens=most_tokens, idle_s=idle_s)


def answered(
    run: TuningRun,
    questions: Sequence[str],
    exchange: Exchanges,
    *,
    client: str,
    adapter: Path | None,
    max_new_tokens: int,
    model: LanguageModel | None = None,
) -> list[str]:
    """Return the greedy answers of a client, whose parts are here, to questions; DataError for one that is too long.

    `adapter` is the folder of the run's result; None for the model as it was before.
    """
    settings, model = split_settings(run), model or language_model(load_model(run).model)
    params = model.trainable | (_adapter(run, model, adapter) if adapter else {})
    ends, wire = Ends.of(model, settings.one_cut()), WIRES[settings.wire]
    through = through_server(ends, client, exchange, wire, max_new_tokens)
    asked = [Chat((Turn("user", text), Turn("assistant", ""))) for text in questions]
    task = run.task.examining()
    (found,) = task.predict(through, params, [asked], max_new_tokens=max_new_tokens)
    for text, one in zip(questions, found, strict=True):
        if not one.n_tokens:
            raise DataError(f"question: found one of {len(text)} characters, longer than task.max_length; shorten it.")
    return [one.text for one in found]


def answered_here(
    run: TuningRun, folder: Path, questions: Sequence[str], *, client: str, max_new_tokens: int
) -> list[str]:
    """Return the answers of a run's result, with client and server in this process."""
    model = language_model(load_model(run).model)
    sessions = sessions_of(run, folder, model)
    return answered(
        run,
        questions,
        lambda messages: [sessions.answer(one) for one in messages],
        client=client,
        adapter=adapter_in(folder, client),
        max_new_tokens=max_new_tokens,
        model=model,
    )
