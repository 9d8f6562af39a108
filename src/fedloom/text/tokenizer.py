"""The tokenizer of a folder where tokenizer.json says all of it: it starts without the tree of `transformers`.

A folder whose class of tokenizer changes what tokenizer.json says, or whose special tokens are not in it, is not read
here. Answers are those of `transformers`' own tokenizer (tested); where a chat template asks for more than names and
blocks, that one is loaded and asked.
"""

import json
import shutil
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as Backend

from fedloom.base.errors import ModelError
from fedloom.text.pretrained import load

__all__ = ["NoTokenizer", "PlainTokenizer"]

_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")  # those that take tokenizer.json as it stands
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CHANGES = ("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "auto_map")
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.globals.clear()


class PlainTokenizer:
    """What `fedloom.contracts.language.Tokenizer` says, from the files of a folder."""

    def __init__(self, folder: Path, backend: Backend, special: dict[str, str], others: Sequence[str]) -> None:
        self.folder, self.backend_tokenizer, self.is_fast = folder, backend, True
        self.special_tokens_map = special
        self.all_special_tokens = list(dict.fromkeys((*special.values(), *others)))
        self.all_special_ids = [backend.token_to_id(token) for token in self.all_special_tokens]
        self.eos_token, self.bos_token = special.get("eos_token"), special.get("bos_token")
        self.eos_token_id, self.bos_token_id, self.unk_token_id = (
            None if name not in special else backend.token_to_id(special[name])
            for name in ("eos_token", "bos_token", "unk_token")
        )

    @classmethod
    def read(cls, folder: Path) -> "PlainTokenizer | None":
        """Return the folder's tokenizer; None where there is none of this kind, ModelError for a damaged file."""
        file = folder / "tokenizer.json"
        try:
            stated: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None  # transformers says what is wrong
        known = stated.get("tokenizer_class") in _CLASSES and file.is_file()
        if not known or any(stated.get(name) for name in _CHANGES):
            return None
        try:
            backend = Backend.from_file(str(file))
        except Exception as error:  # tokenizers raises no narrower class
            raise ModelError(f"{file}: no tokenizer ({str(error).partition(chr(10))[0]}); fetch it again.") from error
        backend.no_truncation()
        backend.no_padding()
        special = {name: stated[name] for name in _NAMED if stated.get(name) is not None}
        others = stated.get("extra_special_tokens") or stated.get("additional_special_tokens") or []
        known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        if not isinstance(others, list) or not all(isinstance(one, str) for one in (*special.values(), *others)):
            return None
        return cls(folder, backend, special, others) if known.issuperset((*special.values(), *others)) else None

    def __len__(self) -> int:
        """Return the number of tokens, added ones included."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; the files are read again there only for a rich chat template."""
        return {name: value for name, value in vars(self).items() if name != "whole"}

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The added tokens by their numbers, special or not."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    def __call__(
        self, text: str | list[str], *, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, Any]:
        """Return under `input_ids` the tokens of a text, or of each of several; `verbose` changes nothing."""
        if isinstance(text, str):
            return {"input_ids": self.encode(text, add_special_tokens=add_special_tokens)}
        found = self.backend_tokenizer.encode_batch(text, add_special_tokens=add_special_tokens)
        return {"input_ids": [one.ids for one in found]}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the tokens of a text, by default with those that stand around every text."""
        return self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, tokens: Any, *, skip_special_tokens: bool = False, **_: Any) -> str:
        """Return the text of a token or of several."""
        ids = [tokens] if isinstance(tokens, int) else list(tokens)
        return self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def get_vocab(self) -> dict[str, int]:
        """Return the number of each token, added ones included."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def save_pretrained(self, folder: Path) -> None:
        """Copy the files."""
        for name in _FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, Path(folder) / name)

    # ------------------------------------------------------------------------------------------------- conversations

    @cached_property
    def chat_template(self) -> str | None:
        """The source of the chat template; None without one."""
        file = self.folder / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        stated = json.loads((self.folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
        return stated if stated is None or isinstance(stated, str) else self.whole.chat_template

    def get_chat_template(self) -> str:
        """Return the chat template that is meant where several have names."""
        template = self.chat_template
        return template if isinstance(template, str) else self.whole.get_chat_template()

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, chat_template: str, tokenize: bool, **variables: Any
    ) -> Any:
        """Return a conversation as text; what templates may read is `variables`, special tokens and messages."""
        known = {"messages": messages, "tools": None, "documents": None} | self.special_tokens_map | variables
        template = None if tokenize else _compiled(chat_template, frozenset(known))
        if template is not None:
            return template.render(known)
        whole = self.whole
        return whole.apply_chat_template(messages, chat_template=chat_template, tokenize=tokenize, **variables)

    @cached_property
    def whole(self) -> Any:
        """The same tokenizer by `transformers`, which is imported when it is first asked for."""
        from transformers import AutoTokenizer

        return load(AutoTokenizer, self.folder)


@cache
def _compiled(source: str, known: frozenset[str]) -> jinja2.Template | None:
    """Return the template; None for one that names anything else, as functions, or writes JSON."""
    try:
        asked = meta.find_undeclared_variables(_ENVIRONMENT.parse(source)) - known
    except jinja2.TemplateError:
        return None
    optional = {"bos_token", "tools", "builtin_tools", "tools_in_user_message"}
    return None if asked - optional or "tojson" in source else _ENVIRONMENT.from_string(source)


class NoTokenizer:
    """What stands where no text is read: the server of a split model has none."""

    def __len__(self) -> int:
        """Return that it knows no token."""
        return 0

    def __getattr__(self, name: str) -> Any:
        """Refuse to be asked."""
        raise ModelError("this part of the model has no tokenizer: no text is read here; give the whole model.")
