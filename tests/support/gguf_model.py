"""A tiny random Llama as a GGUF file, written by the library `gguf` alone."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import LlamaConfig, LlamaForCausalLM

from support.models import bare_model

LAYERS, HEADS, GROUPS = 2, 4, 2
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def gguf_file(
    path: Path, *, architecture: str = "llama", kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0
) -> LlamaForCausalLM:
    """Write a file whose matrices are quantised as `kind`; return the model that it was made of."""
    model: Any = bare_model("llama", intermediate_size=64)
    writer = gguf.GGUFWriter(path, architecture)
    _settings(writer, model.config)
    _tokenizer(writer, model.config.vocab_size - 1)  # transformers gives it an end-of-text token of its own
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":  # tied to the embedding
            continue
        numbers = value.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            numbers = _turned(numbers, HEADS if "q_proj" in name else GROUPS)
        found = names.get_name(name.removesuffix(".weight"))
        matrix = kind if numbers.ndim == 2 else gguf.GGMLQuantizationType.F32
        known = matrix if matrix.name in ("F32", "Q8_0") else gguf.GGMLQuantizationType.Q8_0
        raw = gguf.quants.quantize(numbers, known)
        writer.add_tensor(f"{found}.weight", raw, raw_dtype=None if matrix.name == "F32" else known)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _settings(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)


def _tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    letters = [chr(code) for code in range(ord("!"), ord("!") + size - 4)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<unk>", "<s>", "</s>", *letters, letters[0] + letters[1]])
    writer.add_token_types([3, 3, 3, *[1] * (size - 3)])
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)


def _turned(rows_OI: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows in llama.cpp's order: halves of a head's rotations side by side become pairs."""
    return rows_OI.reshape(heads, 2, len(rows_OI) // heads // 2, -1).swapaxes(1, 2).reshape(rows_OI.shape)
