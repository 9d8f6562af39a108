"""Tiny random models of several architectures, made on the spot: nothing is downloaded."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from fedloom.text.pretrained import quiet

VOCABULARY = 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def configs(**changes) -> dict[str, PreTrainedConfig]:
    """A configuration by architecture; `changes` are meant for the one that knows them."""
    sizes = SIZES | changes
    return {
        "llama": LlamaConfig(**{"tie_word_embeddings": True} | sizes),
        "qwen2": Qwen2Config(**sizes),
        "gpt2": GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=sizes["num_hidden_layers"],
            n_head=4,
            n_positions=64,
            bos_token_id=1,
            eos_token_id=2,
        ),
        "mistral": MistralConfig(**sizes),
        "gemma": GemmaConfig(**sizes, head_dim=8),
    }


ARCHITECTURES = tuple(configs())


def bare_model(architecture: str, seed: int = 0, **changes) -> PreTrainedModel:
    """A random model; embeddings and norms are far from their start so that no term is hidden by zeros or ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(configs(**changes)[architecture], attn_implementation="sdpa")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def tokenizer() -> PreTrainedTokenizerFast:
    # One token fewer than the models embed: transformers gives Qwen2's tokenizers an end-of-text token of its own.
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCABULARY - 1)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def model_folder(folder: Path, architecture: str = "llama", seed: int = 0, **changes) -> Path:
    """The folder, now with a random model and a tokenizer as save_pretrained writes them."""
    with quiet():
        bare_model(architecture, seed, **changes).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


def some_tokens(n_examples: int = 3, length: int = 7) -> Tensor:
    return torch.randint(3, VOCABULARY, (n_examples, length), generator=torch.Generator().manual_seed(5))
