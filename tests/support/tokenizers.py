"""Small tokenizers of the kinds that models come with, trained here in a moment; nothing is downloaded."""

import json
import random
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = [
    "Below is an instruction that describes a task.\n\n### Instruction:\nname the dose \n\n### Response: Two pills.",
    "USER: who sells red bread? ASSISTANT: the old baker sells it, every day at 7.",
    "system user assistant\nI'm sorry, I can't help with that. 12 + 30 = 42\n\nThe end of the story was good\n",
    "naïve café “quoted” — dash … Привет мир",
]
_SPLIT = (  # how Llama 3 and Qwen 2 cut texts into words
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _wrap(backend, **special):
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)


ROLE_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _byte_level(specials, split):
    backend = Tokenizer(models.BPE())
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    if split is not None:
        pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), pre])
    backend.pre_tokenizer = pre
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    return backend


def _sentencepiece_like(*, normalizer, pre_tokenizer, strip):
    """A BPE over pieces with '▁' for the blank, unknown characters as bytes."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.train_from_iterator([line for text in _CORPUS[:3] for line in text.split("\n")], trainer)
    state = json.loads(backend.to_str())
    state["model"] |= {"byte_fallback": True, "fuse_unk": True}
    state["added_tokens"] = state["added_tokens"][:3]
    backend = Tokenizer.from_str(json.dumps(state))
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    undo = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if strip else undo)
    return backend


def _with_begin(backend, begin):
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
    )
    return backend


def _llama2():
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend = _sentencepiece_like(normalizer=normalizer, pre_tokenizer=None, strip=True)
    return _wrap(_with_begin(backend, "<s>"), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _stories():
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend = _sentencepiece_like(normalizer=normalizer, pre_tokenizer=None, strip=True)
    return _wrap(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _mistral():
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    backend = _sentencepiece_like(normalizer=None, pre_tokenizer=metaspace, strip=True)
    return _wrap(_with_begin(backend, "<s>"), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _llama3():
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]
    backend = _byte_level([*names, *(f"<|reserved_{i}|>" for i in range(60))], _SPLIT)
    return _wrap(_with_begin(backend, "<|begin_of_text|>"), bos_token=names[0], eos_token=names[1])


def _qwen():
    backend = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], _SPLIT)
    return _wrap(backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _gpt2():
    return _wrap(_byte_level(["<|endoftext|>"], None), eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def prefixed():
    """Return a byte-level tokenizer that puts a blank before each message, whose chat template has no white space."""
    specials = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    backend = _byte_level(specials, None)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made = _wrap(backend, pad_token="<|pad|>", eos_token="<|end|>", additional_special_tokens=specials[2:])
    made.chat_template = ROLE_TEMPLATE
    return made


def _gemma():
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Replace(" ", "▁")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.UnigramTrainer(
        vocab_size=450, special_tokens=specials, unk_token="<unk>", show_progress=False, shrinking_factor=0.9
    )
    backend.train_from_iterator(_CORPUS[:3], trainer)
    state = json.loads(backend.to_str())
    state["model"]["byte_fallback"] = True
    state["added_tokens"] = state["added_tokens"][:4]
    backend = Tokenizer.from_str(json.dumps(state))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return _wrap(_with_begin(backend, "<bos>"), **names)


def _wordpiece():
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend.train_from_iterator(
        _CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    return _wrap(backend, unk_token="[UNK]", cls_token="[CLS]", eos_token="[SEP]", pad_token="[PAD]")


_KINDS = {
    "llama2": _llama2,
    "stories": _stories,
    "mistral": _mistral,
    "llama3": _llama3,
    "qwen": _qwen,
    "gpt2": _gpt2,
    "gemma": _gemma,
    "wordpiece": _wordpiece,
}
KINDS = tuple(_KINDS)
LOSSLESS = tuple(kind for kind in KINDS if kind != "wordpiece")
"""The kinds whose tokens hold every character."""


@cache
def _serialised(kind):
    return _KINDS[kind]()


def tokenizer(kind, *, chat_template=None):
    """Return a fresh tokenizer of the kind; a chat template brings its two special tokens along."""
    made = _KINDS[kind]() if chat_template else _serialised(kind)
    if chat_template:
        made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        made.chat_template = chat_template
    return made


def random_text(rng: random.Random) -> str:
    """Return a short text of words, numbers, odd characters and white space in odd places; never only white space."""
    parts = [
        "red",
        " bread",
        "the",
        " dose",
        "42",
        " 7",
        ".",
        "\n",
        "\n\n",
        " ",
        "  ",
        "'t",
        "é",
        "мир",
        "🙂",
        "###",
        ":",
    ]
    text = "".join(rng.choices(parts, k=rng.randint(1, 12)))
    return text if text.strip() else f"{text}so"
