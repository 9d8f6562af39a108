"""Plug-ins that fedloom does not ship: modules by name, or files of Python beside the run file, known by their hash.

A run file says `plugins = ["my_rule.py"]`; the resolved one says `my_rule.py@<SHA-256>`, and a copy of the file lies
beside it, so that whoever goes on with the run, exports or compares it finds the program that made it. A file's program
is run when the run file is read, as a module's is: a run file with plug-ins is a program.
"""

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import ExecutionLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import forget

__all__ = ["Travelling", "import_plugins", "plugin_files"]

_ROOM = "fedloom_plugins"
_TEXTS: dict[str, str] = {}
"""The text of each file that was read, by its name with the hash."""


def import_plugins(named: Any, beside: Path) -> list[str]:
    """Import plug-ins as a run file in the folder `beside` names them, and return their names, files with the hash.

    Refused with ConfigError are names that are none, files that have changed, and what cannot be imported.
    """
    if not isinstance(named, list | tuple) or not all(isinstance(one, str) for one in named):
        raise ConfigError(f"plugins: found {named!r}, allowed is a list of module names or files in quotes.")
    paths = {one: Path(one.partition("@")[0]) for one in named}
    stems = [paths[one].stem for one in named if paths[one].suffix == ".py"]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise ConfigError(f"plugins: two files are called '{twice[0]}.py'; rename one.")
    _forget_others({f"{_ROOM}.{stem}" for stem in stems})
    return [_of_file(one, beside) if paths[one].suffix == ".py" else _of_module(one) for one in named]


def _forget_others(modules: set[str]) -> None:
    """Forget plug-ins of files that another run named: two runs may have two that are called alike."""
    forget(lambda name: not name.startswith(f"{_ROOM}.") or name in modules)
    for name in [name for name in sys.modules if name.startswith(f"{_ROOM}.") and name not in modules]:
        del sys.modules[name]


def plugin_files(named: Sequence[str]) -> dict[str, str]:
    """Return the texts of the imported files among plug-ins, by the names they have beside a run file."""
    return {one.partition("@")[0]: _TEXTS[one] for one in named if one in _TEXTS}


class Travelling:
    """Plug-ins' files on their way to a process that is a child of this one, ahead of what is made of them."""

    def __reduce__(self) -> tuple[Callable[..., "Travelling"], tuple[Mapping[str, str]]]:
        now = [vars(module).get("__pinned__") for name, module in sys.modules.items() if name.startswith(f"{_ROOM}.")]
        return _arrived, ({name: _TEXTS[name] for name in now if name},)


def _arrived(texts: Mapping[str, str]) -> Travelling:
    for name, text in texts.items():
        _run_once(name, text, Path(name.partition("@")[0]))
    return Travelling()


def _of_module(name: str) -> str:
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"plugins: '{name}' cannot be imported: {_told(error)}.") from error
    return name


def _of_file(named: str, beside: Path) -> str:
    name, _, wanted = named.partition("@")
    path = beside / name
    if named in _TEXTS:
        _run_once(named, _TEXTS[named], path)
        return named
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"plugins: {path} cannot be read: {why}; give its path from the run file's folder."
        ) from error
    found = hashlib.sha256(text.encode()).hexdigest()
    if wanted and wanted != found:
        raise ConfigError(f"plugins: {path} is not the file of the run any more; restore it, or start a new run.")
    pinned = f"{path.name}@{found}"
    _run_once(pinned, text, path)
    return pinned


def _run_once(pinned: str, text: str, path: Path) -> None:
    """Make a file's program the module of its name; one whose text is the same is not run again."""
    name = f"{_ROOM}.{path.stem}"
    current = sys.modules.get(name)
    if current is not None and vars(current).get("__pinned__") == pinned:
        return
    loader = _TextLoader(text, path)
    module = module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    vars(module).update(__file__=str(path), __pinned__=pinned)
    sys.modules.setdefault(_ROOM, ModuleType(_ROOM))
    sys.modules[name] = module  # classes look their module up while they are made
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # it is the user's program: it may raise anything
        del sys.modules[name]
        raise ConfigError(f"plugins: {path} cannot be imported: {_told(error, path)}.") from error
    _TEXTS[pinned] = text


class _TextLoader(ExecutionLoader):
    """Loads a module from a text that was read and hashed, so that what is run is what is recorded."""

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path

    def get_source(self, fullname: str) -> str:
        """Return the text."""
        return self.text

    def get_filename(self, fullname: str) -> str:
        """Return the path."""
        return str(self.path)

    def is_package(self, fullname: str) -> bool:
        """Return False: it is one file."""
        return False


def _told(error: BaseException, path: Path | None = None) -> str:
    """Return what went wrong, with the line of the file where it did."""
    if path is None or isinstance(error, ConfigError):
        return str(error).rstrip(".")
    frames = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else (frames or [None])[-1]
    return f"line {line}: {type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
