"""A state as a checkpoint and back: one safetensors file per group, no code of any algorithm."""

from collections.abc import Mapping

from fedloom.base.tree import Layout, Slots, Tree, flatten
from fedloom.federated.rounds import State
from fedloom.runs.directory import Checkpoint

__all__ = ["load_state", "save_state"]


def save_state(state: State, layout: Layout, *, stage: int, wall_s: float) -> Checkpoint:
    """Return the checkpoint of a state in the given stage of its run."""
    memory: Tree = {}
    for client, slots in state.memory.items():
        memory |= {f"{name}/{client}": tensor for name, tensor in _named(slots).items()}
    trees = {
        "params.safetensors": layout.tree(state.params_P) if layout.entries else {},
        "shared.safetensors": _named(state.shared),
        "opt.safetensors": _named(state.opt),
        "memory.safetensors": memory,
        "mechanism.safetensors": state.privacy,
    }
    if state.history:
        trees["history.safetensors"] = _named(state.history)
    if state.best:
        trees["best.safetensors"] = state.best
    if state.middle:
        trees["middle.safetensors"] = _named(state.middle)
    return Checkpoint(trees, {"round": state.round, "leg": stage, "wall_s": wall_s, "spent": dict(state.spent)})


def load_state(saved: Checkpoint, layout: Layout) -> tuple[int, State]:
    """Return the stage and the state of a checkpoint."""
    params = saved.trees["params.safetensors"]
    params_P = flatten({name: params[name] for _, name, _ in layout.entries})
    memory: dict[str, Slots] = {}
    for key, tensor in saved.trees["memory.safetensors"].items():
        slot, name, client = key.split("/", 2)
        memory.setdefault(client, {}).setdefault(slot, {})[name] = tensor
    shared, opt = (_slots(saved.trees[f"{group}.safetensors"]) for group in ("shared", "opt"))
    history = _slots(saved.trees.get("history.safetensors", {}))
    privacy, spent = saved.trees["mechanism.safetensors"], saved.values["spent"]
    round = int(saved.values["round"])
    best, middle = saved.trees.get("best.safetensors", {}), _slots(saved.trees.get("middle.safetensors", {}))
    return int(saved.values["leg"]), State(round, params_P, shared, opt, memory, spent, privacy, history, best, middle)


def _named(slots: Mapping[str, Tree]) -> Tree:
    return {f"{slot}/{name}": tensor for slot, tree in slots.items() for name, tensor in tree.items()}


def _slots(named: Tree) -> Slots:
    slots: Slots = {}
    for key, tensor in named.items():
        slot, name = key.split("/", 1)
        slots.setdefault(slot, {})[name] = tensor
    return slots
