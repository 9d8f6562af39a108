"""Texts as vectors: by a sentence encoder from a local folder, or by counts of character n-grams.

The encoder is any model that `transformers` loads with its tokenizer; its last hidden states are averaged over the
tokens of a text (Reimers & Gurevych, 2019, https://arxiv.org/abs/1908.10084, mean pooling). Nothing is downloaded.

Deviations: a text is cut at 512 tokens, or earlier where the encoder or its tokenizer ends earlier.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedloom.base.errors import ConfigError, MissingFileError, ModelError
from fedloom.base.extras import library
from fedloom.text.pretrained import load
from fedloom.text.words import well_formed

__all__ = ["counted", "embedded"]

_BATCH = 32
_MOST_TOKENS = 512
_BUCKETS = 1024  # of n-grams


def embedded(texts: Sequence[str], path: str) -> Tensor:
    """Return the texts as unit vectors [N, D], float32, by the sentence encoder in the folder `path`.

    Raises ConfigError if no path is given, MissingFileError if there is no such folder, ModelError if it holds no
    encoder.
    """
    tokenizer, encoder, most = _encoder(path)
    parts: list[Tensor] = []
    for start in range(0, len(texts), _BATCH):
        chosen = [well_formed(text) for text in texts[start : start + _BATCH]]
        inputs = tokenizer(chosen, padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            states_BTD = encoder(**inputs).last_hidden_state.float()
        mask_BT1 = inputs["attention_mask"][:, :, None].float()
        parts.append((states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1))
    return functional.normalize(torch.cat(parts), dim=1)


@cache
def _encoder(path: str) -> tuple[Any, Any, int]:
    if not path:
        raise ConfigError("path: found '', allowed is the folder of a sentence encoder, for instance path = 'minilm'.")
    if not Path(path).is_dir():
        raise MissingFileError(f"path: no folder '{path}'; put a sentence encoder with its tokenizer there.")
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = load(AutoTokenizer, path)
        encoder = load(AutoModel, path, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"path: '{path}' holds no sentence encoder with its tokenizer: {error}.") from error
    positions = encoder.config.to_dict().get("max_position_embeddings", _MOST_TOKENS)
    return tokenizer, encoder, min(_MOST_TOKENS, tokenizer.model_max_length, positions)


def counted(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the texts as unit vectors [N, 1024] of hashed counts of 2 to 4 neighbouring characters; extra `text`."""
    found = library("sklearn.feature_extraction.text")
    hashing = found.HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=_BUCKETS)
    return hashing.transform([well_formed(text) for text in texts]).toarray()
