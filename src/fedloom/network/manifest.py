"""What a run wants of a node, as data: names of shipped plug-ins with numbers in range, hashes, and a layout.

A run file is not safe to accept: it names modules to import, patterns, paths, texts. A manifest is a closed schema: of
a run file only what is listed here travels, free texts never, and what a node has of its own it takes from its own
file: data, model folder, device, engine.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from importlib import metadata
from typing import Any, cast

from fedloom.base import config
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.files import json_sha256
from fedloom.base.plugin import Family
from fedloom.base.tree import Layout
from fedloom.contracts.data import Source
from fedloom.contracts.federated import Engine
from fedloom.models.causal_lm import CausalLM
from fedloom.network.frames import PROTOCOL
from fedloom.network.jobs import layout_from, layout_to
from fedloom.runs.stage import Loaded
from fedloom.runs.tuning import TuningRun
from fedloom.split.parts import states_dtype

__all__ = ["Manifest", "OwnSettings", "manifest_of", "run_at_node", "states_of"]

_PARTS = ("protocol", "model", "task", "local", "rule", "server_opt", "aggregator", "codec", "privacy")
"""Tables of a run file that travel."""
_PLAIN = (
    *("seed", "rounds", "clients_per_round", "min_clients", "weighting", "max_weight", "ranks", "start_data"),
    "refine_every",
)
_HOLDOUT = ("holdout", "holdout_by", "holdout_group", "split")
"""Of `evaluation`: what no client trains on."""
_ASKED = ("metrics", "max_new_tokens", "every")
"""Of `evaluation`: what is asked of nodes, where they are asked for scores."""
_OWN = {"model.path", "model.adapter", "model.dtype", "model.gradient_checkpointing"}
"""What a node has of its own; the hash of its base weights is compared."""
_AT_SERVER = {"aggregator.root", "aggregator.prompts", "aggregator.file"}
"""What the server reads and no node needs."""
_WORDS = {"protocol.cuts", "model.lora_targets", "task.labels", "evaluation.holdout_group"}
"""Names that are compared and never opened, matched or filled in: short, and of plain letters."""
_WORD = re.compile(r"[\w .,:'()+-]{0,80}")
_KEYS = {"protocol", "fedloom", "clients", "nodes", "base_id", "start", "states", "trained", "layout", "settings"}
_MOST_NAMES = 100_000


@dataclass(frozen=True, kw_only=True)
class OwnSettings:
    """What a run takes from a node's own file, whatever a server says."""

    data: Source
    engine: Engine
    model_path: str = ""
    adapter: str = ""
    dtype: str = "auto"
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True)
class Manifest:
    """What a run wants of a node."""

    table: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of all that it says, whatever the order."""
        return json_sha256(self.table)

    @property
    def clients(self) -> tuple[str, ...]:
        """All clients of the run, in their order."""
        return tuple(self.table["clients"])

    @property
    def nodes(self) -> dict[str, str]:
        """The node of each client."""
        return dict(zip(self.clients, self.table["nodes"], strict=True))

    @property
    def protocol(self) -> int:
        """The number of the protocol that the server speaks."""
        return self.table["protocol"]

    @property
    def layout(self) -> Layout:
        """Names and shapes of what is shared."""
        return layout_from(self.table["layout"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """What travels of the run file."""
        return self.table["settings"]

    @property
    def text(self) -> str:
        """The manifest as JSON."""
        return json.dumps(self.table, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parsed(cls, text: str) -> "Manifest":
        """Return the manifest of a JSON text; whatever the schema has not is refused by name: DataError."""
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"manifest: is no JSON ({error}).") from error
        if not isinstance(table, dict):
            raise DataError("manifest: is no table.")
        found = cast("dict[str, Any]", table)
        _refuse_other_keys(found, _KEYS, "manifest")
        for key in ("fedloom", "base_id", "start", "states"):
            _refuse_unless(isinstance(found[key], str) and len(found[key]) <= 200, f"manifest.{key}", "a short text")
        for key in ("clients", "trained"):
            _refuse_unless(_is_names(found[key]), f"manifest.{key}", "a list of names, each once")
        nodes = found["nodes"]
        fits = isinstance(nodes, list) and len(nodes) == len(found["clients"])  # pyright: ignore[reportUnknownArgumentType]
        fits = fits and all(isinstance(one, str) and len(one) <= 63 for one in cast("list[Any]", nodes))
        _refuse_unless(fits, "manifest.nodes", "a node's name for each client")
        layout_from(found["layout"])
        _refuse_unless(isinstance(found["settings"], dict), "manifest.settings", "a table")
        _refuse_other_keys(found["settings"], {*_PARTS, *_PLAIN, "evaluation", "deployment"}, "manifest.settings")
        asked = found["settings"]["deployment"]
        _refuse_unless(isinstance(asked, dict), "manifest.settings.deployment", "a table")
        _refuse_other_keys(asked, {"evaluate"}, "manifest.settings.deployment")
        _refuse_texts(found["settings"], "manifest.settings")
        return cls(found)


def manifest_of(run: TuningRun, loaded: Loaded, nodes: Mapping[str, str]) -> Manifest:
    """Return what a run wants of its nodes, given by client; ConfigError where it needs what must not travel."""
    _refuse_untold(run)
    return Manifest(
        {
            "protocol": PROTOCOL,
            "fedloom": metadata.version("fedloom"),
            "clients": list(nodes),
            "nodes": list(nodes.values()),
            "base_id": loaded.model.base_id,
            "start": loaded.start,
            "states": states_of(run, loaded),
            "trained": list(loaded.model.trainable),
            "layout": layout_to(loaded.layout),
            "settings": _settings(run),
        }
    )


def states_of(run: TuningRun, loaded: Loaded) -> str:
    """Return the type of states that pass between two sides of a model; "" where none pass."""
    if not run.protocol.splits:
        return ""
    return str(states_dtype(loaded.model.module, loaded.model.trainable)).removeprefix("torch.")


def run_at_node(manifest: Manifest, own: OwnSettings) -> TuningRun:
    """Return the run that a node carries out: the manifest's settings with its own data, model and device.

    Settings that do not come back as they were told are refused: ConfigError.
    """
    table: dict[str, Any] = {key: _copied(value) for key, value in manifest.settings.items()}
    asked = config.build(TuningRun, table, "manifest")
    _refuse_untold(asked)
    odd = config.differing_keys(_settings(asked), manifest.settings)
    if odd:
        raise ConfigError(f"manifest.{odd[0]}: is nothing that a server may tell a node.")
    model = asked.model
    if isinstance(model, CausalLM):
        model = replace(model, path=own.model_path, adapter=own.adapter, dtype=own.dtype)  # pyright: ignore[reportArgumentType]
    return replace(
        asked,
        model=model,
        data=own.data,
        device=own.device,  # pyright: ignore[reportArgumentType]
        threads=own.threads,
        engine=own.engine,
        train=None if asked.ranks else _exactly(manifest.table["trained"]),
        share=_shared(manifest),
    )


def _shared(manifest: Manifest) -> str:
    names = [name for _, name, _ in manifest.layout.entries]
    return ".*" if set(names) == set(manifest.table["trained"]) else _exactly(names)


def _exactly(names: Sequence[str]) -> str:
    """Return a pattern of our own that finds these names alone: none travels."""
    return f"^(?:{'|'.join(map(re.escape, names))})$"


def _copied(value: Any) -> Any:
    return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value


def _refuse_untold(run: TuningRun) -> None:
    """Refuse a run that cannot be told as data, by what is in the way."""
    in_the_way = {
        "plugins": bool(run.plugins),
        "prepare": bool(run.prepare),
        "attack": run.attack is not None,
        "protocol": not (run.protocol.accounted or run.protocol.splits),
    }
    for key, found in in_the_way.items():
        if found:
            raise ConfigError(
                f"{key}: found in a run whose clients are on other machines, which take no code, no texts and no roles "
                "from a server; leave it out."
            )


# ------------------------------------------------------------------------------------------------- what may be told


def _settings(run: TuningRun) -> dict[str, Any]:
    told = {key: _told(vars(run)[key], key) for key in _PARTS}
    told |= {key: _plain(vars(run)[key]) for key in _PLAIN}
    evaluation = {item.name: item for item in fields(run.evaluation)}
    told["evaluation"] = dict(
        one
        for key in (*_HOLDOUT, *(_ASKED if run.deployment.evaluate else ()))
        for one in _entry(evaluation[key], vars(run.evaluation)[key], f"evaluation.{key}")
    )
    told["deployment"] = {"evaluate": run.deployment.evaluate}
    return told


def _told(record: Any, path: str) -> dict[str, Any]:
    """Return a record as it may be told; a plug-in that fedloom does not ship is refused."""
    head: dict[str, Any] = {}
    if isinstance(record, Family):
        if not type(record).__module__.startswith("fedloom."):
            raise ConfigError(
                f"{path}: '{record.name}' is a plug-in of your own, which no node has; use one of fedloom."
            )
        head = {"name": record.name}
    own, known = vars(record), cast("Sequence[Field[Any]]", fields(record))  # pyright: ignore[reportArgumentType]
    return head | dict(
        one for item in known if item.init for one in _entry(item, own[item.name], f"{path}.{item.name}")
    )


def _entry(item: Field[Any], value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield a setting with its name, where it travels; a text that must not, and says anything, is refused."""
    if path in _OWN | _AT_SERVER or value is None:
        return
    if is_dataclass(value):
        yield item.name, _told(value, path)
    elif item.name == "metrics":
        yield item.name, [_told(one, f"{path}.{one.name}") for one in value]
    elif _is_free_text(value, item, path):
        if value != _default_of(item):
            raise ConfigError(f"{path}: found {value!r}; a text must not travel to a node: leave it out.")
    else:
        yield item.name, _plain(value)


def _is_free_text(value: Any, item: Field[Any], path: str) -> bool:
    texts = value if isinstance(value, tuple) else (value,)
    if not any(isinstance(one, str) for one in cast("tuple[Any, ...]", texts)):
        return False
    if path in _WORDS:
        return not all(_WORD.fullmatch(one) for one in cast("tuple[str, ...]", texts))
    return "Literal" not in str(item.type)


def _default_of(item: Field[Any]) -> Any:
    return (
        item.default
        if item.default is not MISSING
        else item.default_factory()
        if callable(item.default_factory)
        else None
    )


def _plain(value: Any) -> Any:
    return [*cast("tuple[Any, ...]", value)] if isinstance(value, tuple) else value


# ---------------------------------------------------------------------------------------------------- what is refused


def _refuse_other_keys(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in sorted(table.keys() - known):
        raise DataError(f"{where}.{key[:80]}: is nothing that a server may tell a node.")
    for key in sorted(known - table.keys()):
        raise DataError(f"{where}.{key}: missing.")


def _refuse_unless(fits: bool, where: str, allowed: str) -> None:
    if not fits:
        raise DataError(f"{where}: is not what it must be, {allowed}.")


def _is_names(value: Any) -> bool:
    if not isinstance(value, list) or not 0 < len(cast("list[Any]", value)) <= _MOST_NAMES:
        return False
    found = cast("list[Any]", value)
    return all(isinstance(one, str) and len(one) <= 400 for one in found) and len(set(found)) == len(found)


def _refuse_texts(value: Any, path: str) -> None:
    """Refuse anything but numbers, short plain words, and lists and tables of them."""
    if isinstance(value, Mapping):
        for key, one in cast("Mapping[str, Any]", value).items():
            _refuse_texts(one, f"{path}.{key[:80]}")
    elif isinstance(value, list):
        for one in cast("list[Any]", value):
            _refuse_texts(one, path)
    elif isinstance(value, str):
        _refuse_unless(_WORD.fullmatch(value) is not None, path, "a short plain word")
    else:
        _refuse_unless(isinstance(value, bool | int | float), path, "a number, a word, or a list or table of them")
