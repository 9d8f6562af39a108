"""Libraries that only some plug-ins and commands need: asked for before anything is done, not where first used."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

from fedloom.base.errors import ConfigError

__all__ = ["EXTRAS", "http_errors", "library", "require"]

EXTRAS: Mapping[str, str] = {
    "PIL": "images",
    "anny": "anny",
    "accelerate": "gguf",
    "cryptography": "deploy",
    "ctranslate2": "ctranslate2",
    "datasets": "datasets",
    "datasketch": "minhash",
    "diffusers": "diffusers",
    "dp_accounting": "privacy",
    "flwr": "flower",
    "gguf": "gguf",
    "grpc": "deploy",
    "langdetect": "text",
    "lm_eval": "lm-eval",
    "matplotlib": "report",
    "mlflow": "mlflow",
    "openai": "judge",
    "pyarrow": "parquet",
    "ray": "ray",
    "rouge_score": "text",
    "sacrebleu": "text",
    "scipy": "people",
    "skimage": "people",
    "sklearn": "text",
    "tensorboard": "tensorboard",
    "trimesh": "people",
    "vllm": "vllm",
    "wandb": "wandb",
    "xatlas": "xatlas",
}
"""Library -> the extra of fedloom that brings it."""


def require(who: str, *libraries: str) -> None:
    """Raise ConfigError if a library is not installed, naming who needs it and the extra that brings it.

    Nothing is imported.
    """
    for library in libraries:
        if not sys.modules.get(library) and importlib.util.find_spec(library) is None:
            extra = EXTRAS[library]
            raise ConfigError(f"{who}: needs {library}, which is not installed; pip install fedloom[{extra}].")


def library(module: str, who: str = "fedloom") -> Any:
    """Return a module of a library that may be missing; raises ConfigError as `require` does."""
    require(who, module.partition(".")[0])
    return importlib.import_module(module)


def http_errors() -> tuple[type[Exception], ...]:
    """Return what clients of servers let through from a library of HTTP, another one from version to version."""
    below = [importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
    return tuple(kind for library in below for kind in (library.HTTPError, library.InvalidURL))
