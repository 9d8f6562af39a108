"""Whole models on disk, as `transformers` writes them: trained whole, or a base with adapters merged in."""

from pathlib import Path
from typing import Any

from torch import nn

from fedloom.base.errors import ModelError
from fedloom.base.files import atomic_folder
from fedloom.base.tree import Tree
from fedloom.contracts.language import LanguageModel
from fedloom.contracts.lineage import mark_trained
from fedloom.models.llama import Llama
from fedloom.models.lora import lora_layers, place
from fedloom.text.pretrained import quiet

__all__ = ["merge", "write_whole"]


def merge(module: nn.Module) -> None:
    """Add every adapter into its base weight and put the base layers back, in place.

    Raises ModelError if an adapted weight is tied to another, which it would change.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, layer in lora_layers(module).items():
        weight = layer.get_parameter("base.weight")
        if len(names[id(weight)]) > 1:
            raise ModelError(f"'{name}' is tied to another weight, which merging would change; export the adapter.")
        place(layer, {"base.weight": weight.float() + layer.delta()})
        module.set_submodule(name, layer.base)


def write_whole(model: LanguageModel, params: Tree, folder: Path) -> None:
    """Write the module with `params` in place of its own, and the tokenizer; each file is renamed into place.

    Raises ModelError for a tensor that is not the model's.
    """
    if isinstance(model.module, Llama):
        raise ModelError(f"{folder}: was built with adapters, and is not written whole; nothing was written.")
    module: Any = model.module
    own = {id(parameter): name for name, parameter in module.named_parameters()}
    odd = sorted(params.keys() - set(own.values()))
    if odd:
        raise ModelError(f"'{odd[0]}' is no parameter of the model; nothing was written.")
    state: Tree = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):  # both names of a tied weight get its value
        value: Any = params.get(own[id(tensor)], tensor)
        state[name] = value.detach()
    state |= {name: tensor for name, tensor in module.state_dict().items() if name not in state}
    with quiet(), atomic_folder(folder) as new:
        module.save_pretrained(new, state_dict=state)
        mark_trained(new)
        model.tokenizer.save_pretrained(new)
