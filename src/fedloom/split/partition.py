"""A model's weights in three folders: what the client's input part, the server and the client's output part need.

Safetensors are sliced by the names of their tensors, nothing is computed. Each folder holds its tensors and the files
beside them that it needs, and a manifest names the model, the cut, and the SHA-256 of every tensor: a client and a
server whose manifests differ in model, cut or type have no run together, and a file that differs from its manifest is
not read. The server's folder has no tokenizer, and no tensor by which a token could be read.

    input/     embeddings, blocks 0 to a - 1       output/    the last c blocks, final norm, head
    middle/    the blocks between                  manifest.json in each, the same in all but `part`

Deviations from 4.1 of the specification: a head that is tied to the embedding lies in both ends, as each is read alone.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from safetensors import safe_open
from safetensors.torch import save_file

from fedloom.base.errors import ModelError
from fedloom.base.files import atomic_folder, refuse_filled
from fedloom.base.tree import Tree
from fedloom.models.checkpoint import Checkpoint
from fedloom.models.part_files import MANIFEST, VERSION, WEIGHTS, Manifest, PartName, tensor_sha256
from fedloom.split.cut import Cut

__all__ = ["partition"]

_BESIDE = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    *("special_tokens_map.json", "vocab.json", "merges.txt"),
)
"""What a client needs besides weights, as far as the model has it: how texts become tokens and answers end."""

_BLOCK = re.compile(r"^(?:model\.layers|transformer\.h|h)\.(\d+)\.")
_TABLES = re.compile(r"^(?:model\.embed_tokens|(?:transformer\.)?(?:wte|wpe))\.")
_REAR = re.compile(r"^(?:model\.norm|(?:transformer\.)?ln_f|lm_head)\.")
_TOKEN_TABLES = re.compile(r"^(?:model\.embed_tokens|(?:transformer\.)?wte)\.")


def partition(path: str, cut: Cut, out: Path) -> list[Manifest]:
    """Write the parts of a model, by its folder or name, into a new folder; return their manifests."""
    source = Checkpoint.find(path)
    found = {name: file for file in source.weights for name in _names(file)}
    blocks = {int(match.group(1)) for name in found if (match := _BLOCK.match(name))}
    if not blocks or blocks != set(range(len(blocks))):
        raise ModelError(f"{source.folder}: its tensors name no blocks 0, 1, ...; allowed are Llama, Qwen2 and GPT-2.")
    middle = cut.middle(len(blocks))
    homes = {name: _homes(name, middle, found, source.folder) for name in found}
    refuse_filled(out, "choose another folder")
    manifests: list[Manifest] = []
    with atomic_folder(out) as new:
        for part in get_args(PartName):
            tensors = _read(source, [name for name, where in homes.items() if part in where])
            manifests.append(_write(new / part, part, tensors, source, cut, len(blocks)))
    return manifests


def _homes(name: str, middle: range, names: Mapping[str, Any], folder: Path) -> tuple[PartName, ...]:
    """Return the parts in which a tensor lies."""
    if block := _BLOCK.match(name):
        number = int(block.group(1))
        return ("input",) if number < middle.start else ("middle",) if number in middle else ("output",)
    if _TABLES.match(name):
        tied = bool(_TOKEN_TABLES.match(name)) and "lm_head.weight" not in names
        return ("input", "output") if tied else ("input",)
    if _REAR.match(name):
        return ("output",)
    raise ModelError(f"{folder}: '{name}' belongs to no part that is known; allowed are Llama, Qwen2 and GPT-2.")


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return list(tensors.keys())


def _read(source: Checkpoint, names: list[str]) -> Tree:
    found: Tree = {}
    for file in source.weights:
        with safe_open(file, "pt") as tensors:
            found |= {name: tensors.get_tensor(name) for name in tensors.keys() if name in names}  # noqa: SIM118
    return found


def _write(folder: Path, part: PartName, tensors: Tree, source: Checkpoint, cut: Cut, n_blocks: int) -> Manifest:
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    kinds = sorted({str(one.dtype).removeprefix("torch.") for one in tensors.values()})
    hashes = {name: tensor_sha256(name, one) for name, one in sorted(tensors.items())}
    manifest = Manifest(VERSION, part, source.base_id, str(cut), n_blocks, " ".join(kinds), hashes)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
    beside = ("config.json",) if part == "middle" else _BESIDE
    for name in beside:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    return manifest
