"""Pickles of arrays read without running what they hold: numpy and scipy arrays and what chumpy wraps, nothing else.

Official SMPL files and 4D-DRESS are pickles. Each name that a pickle asks for is answered from a table of this module;
none is imported, so a pickle that names anything else is refused before it does anything. chumpy is not needed.
"""

import io
import pickle
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
    RecursionError,
    TypeError,
    ValueError,
)


class _Kept(ABC):
    """An object of a library of arrays: what the pickle stored of it."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError("an object's state is no dictionary")
        self.state = state

    @abstractmethod
    def array(self) -> Any:
        """Return the array that the object stands for."""


class _Wrapped(_Kept):
    """chumpy.ch.Ch: an array of numbers."""

    def array(self) -> Any:
        return _plain(self.state["x"])


class _Selected(_Kept):
    """chumpy.reordering.Select: some entries of another array, in a shape."""

    def array(self) -> Any:
        chosen = np.ravel(_plain(self.state["a"]))[_plain(self.state["idxs"])]
        shape = self.state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(_plain(shape))


class _Reshaped(_Kept):
    """chumpy.reordering.Reshape: an array in a shape."""

    def array(self) -> Any:
        return np.reshape(_plain(self.state["a"]), _plain(self.state["newshape"]))


class _Turned(_Kept):
    """chumpy.reordering.Transpose: an array with other axes first."""

    def array(self) -> Any:
        return np.transpose(_plain(self.state["a"]), _plain(self.state.get("axes")))


class _Columns(_Kept):
    """scipy's csc_matrix: made again from its three arrays, so that those of any version of scipy are read."""

    made = "csc_matrix"

    def array(self) -> Any:
        parts = tuple(_plain(self.state[key]) for key in ("data", "indices", "indptr"))
        shape = tuple(_plain(self.state["_shape"]))
        matrix = library("scipy.sparse", "people").__dict__[self.made](parts, shape=shape)
        matrix.check_format(full_check=True)
        return matrix


class _Rows(_Columns):
    """scipy's csr_matrix."""

    made = "csr_matrix"


class _ArrayKind:
    """Stands for numpy.ndarray, which a pickle names and need not call."""


def _empty_array(*_: Any) -> Any:
    return np.ndarray((0,), np.int8)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    return np.frombuffer(data.encode("latin-1") if isinstance(data, str) else data, dtype)[0]


def _bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes of encoding {encoding}")
    return text.encode("latin-1")


def _new_object(kind: Any, *_: Any) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, _Kept)):
        raise ValueError("an object of another kind")
    return kind()


def _named(*modules: str, **found: Any) -> dict[tuple[str, str], Any]:
    return {(module, name): value for module in modules for name, value in found.items()}


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    **_named("numpy.core.multiarray", "numpy._core.multiarray", _reconstruct=_empty_array, scalar=_scalar),
    **_named("numpy.core.numeric", "numpy._core.numeric", _frombuffer=_from_buffer),
    **_named("numpy", ndarray=_ArrayKind, dtype=np.dtype),
    **_named("scipy.sparse.csc", "scipy.sparse._csc", csc_matrix=_Columns),
    **_named("scipy.sparse.csr", "scipy.sparse._csr", csr_matrix=_Rows),
    **_named("chumpy.ch", Ch=_Wrapped),
    **_named("chumpy.reordering", Select=_Selected, Reshape=_Reshaped, Transpose=_Turned),
    **_named("_codecs", encode=_bytes),
    **_named("copy_reg", "copyreg", _reconstructor=_new_object),
    **_named("__builtin__", "builtins", object=_ArrayKind, set=set),
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


def _plain(value: Any) -> Any:
    """Return a value with the arrays that its objects stand for."""
    if isinstance(value, _Kept):
        return value.array()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(_plain(item) for item in value) if isinstance(value, list | tuple) else value


def read_pickle(path: Path) -> Any:
    """Return what a pickle holds: arrays, sparse matrices, numbers, texts and containers of them.

    Raises DataError, naming the class, for one that asks for anything else or is broken; MissingFileError.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: found no file, allowed is a pickle of arrays; check the path.")
    try:
        with path.open("rb") as file:
            return _plain(_Restricted(file, str(path)).load())
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: found no pickle of arrays ({one_line(error)}); is the file whole?") from error
