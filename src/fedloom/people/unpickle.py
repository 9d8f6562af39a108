"""Pickles of arrays read without running what they hold: numpy and scipy arrays and what chumpy wraps, nothing else.

Official SMPL files and 4D-DRESS are pickles. Each name that a pickle asks for is answered from a table of this module;
none is imported, so a pickle that names anything else is refused before it does anything. chumpy is not needed.
"""

import io
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedloom.base.errors import DataError, MissingFileError, one_line
from fedloom.base.extras import library

__all__ = ["read_pickle"]

_BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
_KIND = re.compile(r"[<>=|]?[biufSU][0-9]{1,4}")
Plain = Callable[[Any], Any]


class _Named:
    """What a pickle may name: a class of this module, whose state no pickle sets but by its own method."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state for what has none")


class _Kept(_Named, ABC):
    """An object of a library of arrays: what the pickle stored of it."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError("an object's state is no dictionary")
        self.state = state

    @abstractmethod
    def array(self, plain: Plain) -> Any:
        """Return the array that the object stands for; `plain` gives those of the objects that it holds."""


class _Wrapped(_Kept):
    """chumpy.ch.Ch: an array of numbers."""

    def array(self, plain: Plain) -> Any:
        return plain(self.state["x"])


class _Selected(_Kept):
    """chumpy.reordering.Select: some entries of another array, in a shape."""

    def array(self, plain: Plain) -> Any:
        chosen = np.ravel(plain(self.state["a"]))[plain(self.state["idxs"])]
        shape = self.state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(plain(shape))


class _Reshaped(_Kept):
    """chumpy.reordering.Reshape: an array in a shape."""

    def array(self, plain: Plain) -> Any:
        return np.reshape(plain(self.state["a"]), plain(self.state["newshape"]))


class _Turned(_Kept):
    """chumpy.reordering.Transpose: an array with other axes first."""

    def array(self, plain: Plain) -> Any:
        return np.transpose(plain(self.state["a"]), plain(self.state.get("axes")))


class _Columns(_Kept):
    """scipy's csc_matrix: made again from its three arrays, so that those of any version of scipy are read."""

    made = "csc_matrix"

    def array(self, plain: Plain) -> Any:
        parts = tuple(plain(self.state[key]) for key in ("data", "indices", "indptr"))
        shape = tuple(plain(self.state["_shape"]))
        matrix = library("scipy.sparse", "people").__dict__[self.made](parts, shape=shape)
        matrix.check_format(full_check=True)
        return matrix


class _Rows(_Columns):
    """scipy's csr_matrix."""

    made = "csr_matrix"


class _Kind(_Named):
    """numpy.dtype: of numbers and texts alone, and never numpy's own object, which a state would change for all."""

    def __init__(self, text: Any, *_: Any) -> None:
        text = text.decode("latin-1") if isinstance(text, bytes) else text
        if not isinstance(text, str) or not _KIND.fullmatch(text):
            raise ValueError(f"numbers of kind {text!r}")
        self.dtype: np.dtype[Any] = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a kind of numbers without an order of bytes")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(_Kept):
    """numpy.ndarray as `_reconstruct` begins it: made when its state comes, of numbers alone."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, turned, data = state
        self.made = _filled(data, kind, shape, "F" if turned else "C")

    def array(self, plain: Plain) -> Any:
        return self.made


def _filled(data: Any, kind: Any, shape: Any, order: Any) -> Any:
    if not isinstance(kind, _Kind) or order not in ("C", "F"):
        raise ValueError("an array of no kind of numbers")
    data = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order).copy(order)


class _Buffer(_Named):
    """numpy's _frombuffer."""

    def __new__(cls, buffer: Any, kind: Any, shape: Any, order: Any) -> Any:
        """Return the array."""
        return _filled(buffer, kind, shape, order)


class _Scalar(_Named):
    """numpy's scalar."""

    def __new__(cls, kind: Any, data: Any) -> Any:
        """Return the number."""
        return _filled(data, kind, (1,), "C")[0]


class _Bytes(_Named):
    """_codecs.encode, as older pickles write bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        """Return the bytes."""
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"bytes of encoding {encoding}")
        return text.encode("latin-1")


class _New(_Named):
    """copyreg's _reconstructor: an object of a class that is allowed."""

    def __new__(cls, kind: Any, *_: Any) -> Any:
        """Return the object, without its state."""
        if not (isinstance(kind, type) and issubclass(kind, _Kept)):
            raise ValueError("an object of another kind")
        return kind()


def _named(*modules: str, **found: Any) -> dict[tuple[str, str], Any]:
    return {(module, name): value for module in modules for name, value in found.items()}


_ALLOWED: Mapping[tuple[str, str], type[Any]] = {
    **_named("numpy.core.multiarray", "numpy._core.multiarray", _reconstruct=_Array, scalar=_Scalar),
    **_named("numpy.core.numeric", "numpy._core.numeric", _frombuffer=_Buffer),
    **_named("numpy", ndarray=_Named, dtype=_Kind),
    **_named("scipy.sparse.csc", "scipy.sparse._csc", csc_matrix=_Columns),
    **_named("scipy.sparse.csr", "scipy.sparse._csr", csr_matrix=_Rows),
    **_named("chumpy.ch", Ch=_Wrapped),
    **_named("chumpy.reordering", Select=_Selected, Reshape=_Reshaped, Transpose=_Turned),
    **_named("_codecs", encode=_Bytes),
    **_named("copy_reg", "copyreg", _reconstructor=_New),
    **_named("__builtin__", "builtins", object=_Named, set=set),
}


class _Restricted(pickle.Unpickler):
    def __init__(self, file: io.BufferedReader, where: str) -> None:
        super().__init__(file, encoding="latin-1")
        self._where = where

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"{self._where}: found {one_line(module)}.{one_line(name)}, allowed are arrays of numpy, scipy and "
                "chumpy, as others run code; ask for plain arrays."
            )
        return _ALLOWED[module, name]


class _Plain:
    """Values with the arrays that their objects stand for; each is looked at once, and none may hold itself."""

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}
        self._open: set[int] = set()

    def __call__(self, value: Any) -> Any:
        """Return the value in plain terms; ValueError where it holds itself."""
        if not isinstance(value, _Kept | dict | list | tuple):
            return value
        key = id(value)
        if key in self._open:
            raise ValueError("a value that holds itself")
        if key not in self._known:
            self._open.add(key)
            self._known[key] = self._of(value)
            self._open.discard(key)
        return self._known[key]

    def _of(self, value: Any) -> Any:
        if isinstance(value, _Kept):
            return value.array(self)
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        return type(value)(self(item) for item in value)


def read_pickle(path: Path) -> Any:
    """Return what a pickle holds: arrays, sparse matrices, numbers, texts and containers of them.

    Raises DataError, naming the class, for one that asks for anything else or is broken; MissingFileError.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: found no file, allowed is a pickle of arrays; check the path.")
    try:
        with path.open("rb") as file:
            return _Plain()(_Restricted(file, str(path)).load())
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: found no pickle of arrays ({one_line(error)}); is the file whole?") from error
