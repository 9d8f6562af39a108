"""A tiny random sentence encoder with a tokenizer of a few words, made on the spot: nothing is downloaded."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fedloom.text.pretrained import quiet

POSITIONS = 8


def encoder_folder(folder, *, seed=0):
    """The folder, now with the encoder as save_pretrained writes it."""
    vocabulary = {"[UNK]": 0, "[PAD]": 1, "cat": 2, "mat": 3, "sat": 4}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        BertModel(BertConfig(vocab_size=5, max_position_embeddings=POSITIONS, **sizes)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)
