"""Trees and rows: what training changes, as named tensors and as one vector.

A `Tree` is a flat dict of named tensors, `Slots` are named trees. A `Layout` lists the names and shapes of a tree or of
slots and turns them into one row of P numbers and back. All functions are pure; two trees must agree in names, shapes
and dtypes, and nothing is promoted. The one exception: a tree may meet a stacked one, whose shapes carry more leading
axes.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.base.errors import ModelError

__all__ = [
    "Layout",
    "Slots",
    "Tree",
    "add",
    "digest",
    "flatten",
    "map_trees",
    "scale",
    "stack",
    "sub",
    "zeros_like",
]

Tree = dict[str, Tensor]
Slots = dict[str, Tree]


def _check_alike(first: Tree, second: Tree) -> None:
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ModelError(f"trees differ in {len(odd)} names, the first is '{odd[0]}': both must hold the same tensors.")
    for name, tensor in first.items():
        if tensor.dtype != second[name].dtype:
            raise ModelError(f"'{name}' is {tensor.dtype} in one tree and {second[name].dtype} in the other.")
        shape, other = tuple(tensor.shape), tuple(second[name].shape)
        common = min(len(shape), len(other))
        if shape[len(shape) - common :] != other[len(other) - common :]:
            raise ModelError(f"'{name}' has shape {shape} in one tree and {other} in the other.")


def map_trees(function: Callable[..., Tensor], *trees: Tree) -> Tree:
    """Return the tree of `function` applied to the tensors of one name."""
    for other in trees[1:]:
        _check_alike(trees[0], other)
    return {name: function(*(tree[name] for tree in trees)) for name in trees[0]}


def add(first: Tree, second: Tree, factor: float = 1.0) -> Tree:
    """Return first + factor * second."""
    return map_trees(lambda a, b: torch.add(a, b, alpha=factor), first, second)


def sub(first: Tree, second: Tree) -> Tree:
    """Return first - second."""
    return map_trees(torch.sub, first, second)


def scale(tree: Tree, factor: float) -> Tree:
    """Return factor * tree."""
    return map_trees(lambda a: a * factor, tree)


def zeros_like(tree: Tree) -> Tree:
    """Return the tree of zeros of the same names and shapes."""
    return map_trees(torch.zeros_like, tree)


def stack(trees: Sequence[Tree]) -> Tree:
    """Return one tree whose tensors carry the K given trees along a new leading axis."""
    return map_trees(lambda *tensors: torch.stack(tensors), *trees)


def digest(tree: Tree) -> str:
    """Return the SHA-256 of names, shapes, dtypes and bytes: equal exactly if the trees are equal bit for bit."""
    hasher = hashlib.sha256()
    for name in sorted(tree):
        tensor = tree[name].detach().cpu().contiguous()
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def flatten(tree: Tree) -> Tensor:
    """Return the row [P] of a tree, its tensors one after another in their order; two dtypes are refused."""
    return _join([tensor.reshape(-1) for tensor in tree.values()])


def _join(parts: Sequence[Tensor]) -> Tensor:
    dtypes = sorted({str(part.dtype) for part in parts})
    if len(dtypes) > 1:  # torch.cat would promote them all
        raise ModelError(f"a row needs one dtype, found {', '.join(dtypes)}.")
    return torch.cat(tuple(parts)) if parts else torch.zeros(0)


@dataclass(frozen=True)
class Layout:
    """Names and shapes of slots, in the order in which they lie in a row.

    `entries` holds (slot, name, shape). A lone tree has one slot called "".
    """

    entries: tuple[tuple[str, str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, slots: Mapping[str, Tree]) -> "Layout":
        """Return the layout of slots."""
        return cls(tuple((slot, n, tuple(t.shape)) for slot, tree in slots.items() for n, t in tree.items()))

    @classmethod
    def of_tree(cls, tree: Tree) -> "Layout":
        """Return the layout of a lone tree."""
        return cls.of({"": tree})

    @property
    def size(self) -> int:
        """The P of a row."""
        return sum(math.prod(shape) for _, _, shape in self.entries)

    def spans(self) -> Iterator[tuple[str, str, tuple[int, ...], slice]]:
        """Yield (slot, name, shape, place in the row) of each tensor."""
        start = 0
        for slot, name, shape in self.entries:
            stop = start + math.prod(shape)
            yield slot, name, shape, slice(start, stop)
            start = stop

    def only(self, slots: frozenset[str], *, inside: bool) -> "Layout":
        """Return the layout of the named slots alone, or of the others."""
        return Layout(tuple(entry for entry in self.entries if (entry[0] in slots) is inside))

    def named_after(self, params: "Layout") -> "Layout":
        """Return the layout in which every tensor as long as a row of `params` is divided as that row is."""
        entries: list[tuple[str, str, tuple[int, ...]]] = []
        for slot, name, shape in self.entries:
            whole = shape == (params.size,)
            entries += [(slot, part, own) for _, part, own in params.entries] if whole else [(slot, name, shape)]
        return Layout(tuple(entries))

    def columns(self, slots: frozenset[str]) -> Tensor:
        """Return a mask [P] of the numbers that belong to the named slots."""
        mask_P = torch.zeros(self.size, dtype=torch.bool)
        for slot, _, _, span in self.spans():
            mask_P[span] = slot in slots
        return mask_P

    def row(self, slots: Slots) -> Tensor:
        """Return the row [P] of slots of this layout; another layout is refused by name."""
        found = Layout.of(slots)
        if found != self:
            odd = min(set(found.entries) ^ set(self.entries), default=("", "order", ()))
            raise ModelError(f"a row of another layout: '{odd[0]}/{odd[1]}' {odd[2]} does not fit.")
        return _join([flatten(tree) for tree in slots.values() if tree])

    def slots(self, row: Tensor) -> Slots:
        """Return the slots that lie in a row [P] or in rows [K, P], as views of it."""
        if row.shape[-1:] != (self.size,):
            raise ModelError(f"a row has shape {tuple(row.shape)}, its layout needs ({self.size},).")
        result: Slots = {}
        for slot, name, shape, span in self.spans():
            result.setdefault(slot, {})[name] = row[..., span].view(row.shape[:-1] + shape)
        return result

    def tree(self, row: Tensor) -> Tree:
        """Return the lone tree that lies in a row [P] or in rows [K, P], as views of it."""
        return self.slots(row)[""]
