"""Models in GGUF, the format of llama.cpp: dequantised once into a folder that is named by the file's content.

`transformers` reads them (extra `gguf`). The folder lies in FEDLOOM_CACHE, or in `fedloom` below the user's cache; it
holds safetensors in bfloat16 and a tokenizer, as `save_pretrained` writes them, and may be removed at any time.
"""

import contextlib
import functools
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from fedloom.base.errors import ModelError
from fedloom.base.extras import library, require
from fedloom.base.files import atomic_folder, disk_errors, file_sha256
from fedloom.base.machine import free_bytes
from fedloom.text.pretrained import load, one_line, quiet

__all__ = ["convert", "converted"]

_MAGIC = b"GGUF"
_PLAIN = ("F32", "F16", "F64")
_BYTES_EACH = 8  # of a parameter: in float32 as it is read, and once more in the module that is saved


def converted(file: Path) -> Path:
    """Return the folder with the model of a GGUF file, which is converted where that was not done before.

    Raises ModelError for what cannot be read, ConfigError where the extra is missing.
    """
    at = file.resolve()
    facts = at.stat()
    return _converted(at, facts.st_size, facts.st_mtime_ns, _cache())


@functools.cache
def _converted(file: Path, size: int, changed_ns: int, cache: Path) -> Path:
    """Return the folder; size and time stand for the content, which is hashed once in a process."""
    folder = cache / "gguf" / file_sha256(file)[:32]
    if folder.is_dir():
        return folder
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "gguf.lock"):  # the runs of a suite ask for it at once: all but one wait
        if not folder.is_dir():
            with atomic_folder(folder) as new:
                convert(file, new)
    return folder


def _cache() -> Path:
    stated = os.environ.get("FEDLOOM_CACHE")
    return Path(stated) if stated else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedloom"


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into a folder, as `save_pretrained` does.

    Raises ModelError for a torn file, an architecture or a quantisation that cannot be read, or too little memory.
    """
    require(f"'{file.name}'", "gguf", "accelerate")
    _refuse_unreadable(file)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a bar of the library's that it has no switch for
            tokenizer = load(AutoTokenizer, file.parent, gguf_file=file.name)
            read: Any = load(AutoModelForCausalLM, file.parent, gguf_file=file.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise ModelError(f"{file}: cannot be read as a causal model ({one_line(error)}); use safetensors.") from error
    config = read.config
    vars(config).pop("quantization_config", None)
    # A model that was read from GGUF refuses to be saved: its numbers go into a fresh one.
    module = type(read)(config).to(torch.float32)
    module.load_state_dict(read.state_dict())
    module.tie_weights()
    with quiet():
        module.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _refuse_unreadable(file: Path) -> None:
    with file.open("rb") as start:
        found = start.read(4)
    if found != _MAGIC:
        raise ModelError(f"{file}: begins with {found!r}, a GGUF file with {_MAGIC!r}; fetch it again.")
    try:
        reader = library("gguf").GGUFReader(file)
        architecture = str(reader.fields["general.architecture"].contents())
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ModelError(f"{file}: no complete GGUF file ({one_line(error)}); fetch it again.") from error
    _refuse_architecture(file, architecture)
    _refuse_quantisation(file, reader.tensors)
    n_bytes = _BYTES_EACH * sum(int(tensor.n_elements) for tensor in reader.tensors)
    if n_bytes > (free := free_bytes(torch.device("cpu"))):
        raise ModelError(
            f"{file}: takes {n_bytes / 2**30:.1f} GiB to convert, {free / 2**30:.1f} are free; convert it on a larger "
            "machine and give the folder."
        )


def _refuse_architecture(file: Path, architecture: str) -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES as KNOWN

    if architecture not in KNOWN:
        raise ModelError(
            f"{file}: holds a model of the architecture '{architecture}', which transformers does not read from GGUF; "
            f"read are {', '.join(sorted(KNOWN))}; give the model's safetensors."
        )


def _refuse_quantisation(file: Path, tensors: Iterable[Any]) -> None:
    """Refuse weights of a kind that `gguf` has no numbers for: a row of each kind is tried."""
    gguf = library("gguf")
    for kind, tensor in {tensor.tensor_type: tensor for tensor in tensors}.items():
        try:
            gguf.dequantize(tensor.data.reshape(-1, tensor.data.shape[-1])[:1], kind)
        except (RuntimeError, ValueError, KeyError) as error:  # where it has none it says "not implemented"
            raise ModelError(
                f"{file}: '{tensor.name}' is quantised as {kind.name}, which cannot be dequantised; give a file of "
                "another quantisation (Q4_K_M, Q8_0, F16), or the model's safetensors."
            ) from error
