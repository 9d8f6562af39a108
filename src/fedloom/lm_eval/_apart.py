"""A program and what tests it, in two processes that know nothing of one another but plain values: the children's half.

    _apart.py run PROGRAM            the program a model wrote: comes to its end, then answers calls of its functions
    _apart.py test FOLDER            the tests: call them by name and compare what comes back

Both run confined (`_confine`), the one's standard output the other's input. Values travel as JSON in which each type is
named; what is no plain value stays where it is, and travels as a number that stands for it. So nothing that the program
defines, replaces, looks up in frames or starts anew is there when a comparison is made. A script of its own: it imports
the standard library alone.
"""

import builtins
import importlib.util
import io
import json
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

__all__ = ["decode", "encode"]

_LISTS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()), range)
_MOST = 100_000  # values of an iterator that is read out


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """Return a value as JSON; `keep` gives the number of one that is no plain value."""
    if value is None or type(value) in (bool, str):
        return value
    if isinstance(value, bool | int):
        return {"int": hex(int.__index__(value))}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, complex):
        return {"complex": [float.hex(part) for part in (complex(value).real, complex(value).imag)]}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return {"bytes": bytes.hex(value)}
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(one, keep)] for key, one in dict.items(value)]}
    for name, kind in _LISTS.items():
        if isinstance(value, kind):
            return {name: [encode(one, keep) for one in kind.__iter__(value)]}
    if isinstance(value, Fraction):
        return {"fraction": [hex(value.numerator), hex(value.denominator)]}
    if type(value) in _VIEWS or isinstance(value, Iterator):
        # Tests that read it out read the same; that it can be read but once is lost.
        return {"list": [encode(one, keep) for one in islice(value, _MOST)]}
    return {"kept": keep(value)}


def decode(data: Any, kept: Callable[[int], Any]) -> Any:
    """Return the value of what `encode` gave; `kept` gives what a number stands for."""
    if not isinstance(data, dict):
        return data
    ((name, value),) = data.items()
    if name in _LISTS:
        return _LISTS[name](decode(one, kept) for one in value)
    if name == "dict":
        return {decode(key, kept): decode(one, kept) for key, one in value}
    if name == "complex":
        return complex(*map(float.fromhex, value))
    if name == "fraction":
        return Fraction(*(int(part, 16) for part in value))
    plain: dict[str, Callable[[Any], Any]] = {
        "int": lambda text: int(text, 16),
        "float": float.fromhex,
        "bytes": bytes.fromhex,
        "kept": kept,
    }
    return plain[name](value)


class _Line:
    """Messages over what were standard input and output; these lead nowhere from then on."""

    def __init__(self) -> None:
        self._in, self._out = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(nowhere, standard)

    def send(self, message: Any) -> None:
        """Send one."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def __iter__(self) -> Iterator[Any]:
        return map(json.loads, self._in)


def _module(path: Path, space: dict[str, Any]) -> types.ModuleType:
    """Return the module of a file, run with names that it finds there."""
    spec = importlib.util.spec_from_file_location("__main__", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    vars(module).update(space)
    sys.modules["__main__"] = module
    spec.loader.exec_module(module)
    return module


def _run(program: Path) -> None:
    """Run the program to its end, say so, then call its functions as they are asked for."""
    line, objects = _Line(), list[Any]()
    space = vars(_module(program, {}))

    def keep(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    line.send(
        [
            "ready",
            [name for name, value in space.items() if name[:2] != "__" and not isinstance(value, types.ModuleType)],
        ]
    )
    for name, told, named in line:
        if name == "\n":  # no function's name: what values have these names?
            line.send(["value", encode([space.get(one) for one in named], keep), {"list": []}])
            continue
        args, options = (decode(one, objects.__getitem__) for one in (told, named))
        try:
            value = space[name](*args, **options) if callable(space[name]) else space[name]
            line.send(["value", encode(value, keep), encode(args, keep)])
        except BaseException as error:  # a test may ask for any
            line.send(["error", [kind.__name__ for kind in type(error).__mro__]])


class _Kept:
    """A value that stayed with the program."""

    def __init__(self, number: int) -> None:
        self.number = number


def _test(folder: Path) -> None:
    """Run the tests, with functions that ask the program for what they return."""
    line = _Line()
    heard = iter(line)
    ready, *given = next(heard, ["over"])
    if ready != "ready":
        raise EOFError("the program did not come to its end")

    def keep(value: Any) -> int:
        if isinstance(value, _Kept):
            return value.number
        raise TypeError(f"a {type(value).__name__} cannot be handed to the program")

    def function(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            line.send([name, encode(args, keep), encode(options, keep)])
            kind, value, *rest = next(heard)
            if kind == "error":
                raise next((vars(builtins)[name] for name in value if _is_error(name)), RuntimeError)
            for own, after in zip(args, decode(rest[0], _Kept), strict=True):
                _changed(own, after)
            return decode(value, _Kept)

        return call

    theirs = set(json.loads((folder / "theirs.json").read_text()))
    before = folder / "before.py"
    space = vars(_module(before, {})) if before.is_file() else {}
    # A program gives no name that Python or the task gives: tests would compare by its own.
    names = [name for name in given[0] if name not in theirs]
    line.send(["\n", [], names])
    values = zip(names, decode(next(heard)[1], _Kept), strict=True)
    space |= {name: function(name) if isinstance(value, _Kept) else value for name, value in values}
    _module(folder / "tests.py", space)


def _is_error(name: Any) -> bool:
    found = vars(builtins).get(str(name))
    return isinstance(found, type) and issubclass(found, BaseException)


def _changed(own: Any, after: Any) -> None:
    """Let an argument that the program changed be changed here."""
    if isinstance(own, list):
        own[:] = after
    elif isinstance(own, dict | set):
        own.clear()
        own.update(after)


if __name__ == "__main__":
    sys.stderr = io.StringIO()
    role, place = sys.argv[1:]
    (_run if role == "run" else _test)(Path(place))
