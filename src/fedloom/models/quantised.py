"""Base weights in 8 or 4 bits, by bitsandbytes on a CUDA device."""

import importlib.util
from typing import Any

import torch

from fedloom.base.errors import ConfigError

__all__ = ["QUANTISED", "quantisation"]

QUANTISED = {"8bit": 1, "4bit": 0.5}
"""Bytes of a quantised weight."""


def quantisation(kind: str, device: torch.device) -> Any:
    """Return the settings for `transformers`, None for "none"; ConfigError without a CUDA device or the library."""
    if kind == "none":
        return None
    if device.type != "cuda":
        raise ConfigError(f"quantise: '{kind}' needs a CUDA device, found {device}; set quantise = 'none'.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"quantise: '{kind}' needs bitsandbytes; pip install fedloom[bitsandbytes].")
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
