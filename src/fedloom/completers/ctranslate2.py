"""A model of ours by CTranslate2 (https://opennmt.net/CTranslate2), for CPUs and in eight bits; extra `ctranslate2`.

The model, with its adapter added into its weights, is converted when the completer is opened, or once for all into
`cache`, under a name made of what it is. Tokens of our template go in, an answer up to one of its end tokens comes out;
what all prompts of a group begin with is read once. Drawn answers use a generator of the library's own, seeded anew for
each prompt, which is therefore asked by itself.
"""

import contextlib
import json
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fedloom.base.errors import CompletionError, ModelError, one_line
from fedloom.base.extras import library, require
from fedloom.base.files import atomic_folder, json_sha256
from fedloom.base.plugin import AtLeast, default, plugin
from fedloom.base.rng import seed_of
from fedloom.completers._identity import template_table
from fedloom.contracts.evaluation import Answer, Completer, Completion, Prompt, Sampling
from fedloom.contracts.federated import Template
from fedloom.contracts.language import Tokenizer
from fedloom.models.causal_lm import CausalLM
from fedloom.models.checkpoint import Checkpoint
from fedloom.models.generation import answer_text, prompt_tokens, stop_tokens
from fedloom.text.pretrained import quiet

__all__ = ["CTranslate2"]


@plugin("ctranslate2")
class CTranslate2(Completer):
    """A model by folder or hub name, with an adapter if one is named."""

    path: str = ""
    """Folder or hub name of the model; empty takes the model that ships in the package."""
    adapter: str = ""
    """Folder of an adapter in PEFT's format."""
    template: Template = field(default_factory=default(Template, "own"))
    """How turns become text; own: the tokenizer's."""
    compute: Literal["float32", "int16", "int8", "int8_float32"] = "float32"
    """Numbers that products are computed in; eight bits are fastest, and change answers."""
    threads: AtLeast = 1
    """Threads of the library."""
    batch: AtLeast = 16
    """Prompts answered together."""
    cache: str = ""
    """Folder where converted models are kept; empty converts anew each time."""

    def identity(self) -> str:
        """Return the hashes of model, adapter and template, and how products are computed."""
        known = {"ctranslate2": self.compute, "model": json.loads(self._family().identity())}
        return json.dumps(known | {"template": template_table(self.template)}, sort_keys=True)

    def require(self) -> None:
        """Refuse a missing library with ConfigError."""
        require("completer 'ctranslate2'", "ctranslate2")

    def together(self) -> int:
        """Return several batches, so that prompts of like length share one."""
        return 8 * self.batch

    def _family(self) -> CausalLM:
        if not self.adapter:
            return CausalLM(path=self.path)
        own = CausalLM.for_adapter(Path(self.adapter))
        return replace(own, path=self.path or own.path)

    @contextlib.contextmanager
    def opened(self) -> Generator[Answer]:
        """Convert the model, unless it is in the cache, and load it."""
        translate = library("ctranslate2", "completer 'ctranslate2'")
        source = Checkpoint.find(self._family().path)
        with contextlib.ExitStack() as stack:
            kept = Path(self.cache or stack.enter_context(tempfile.TemporaryDirectory()))
            folder = kept / json_sha256(json.loads(self._family().identity()))[:16]
            if not folder.is_dir():
                self._convert(source, folder)
            generator = translate.Generator(
                str(folder), compute_type=self.compute, inter_threads=1, intra_threads=self.threads
            )
            words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
            tokenizer = source.tokenizer()
            stop = stop_tokens(self.template, tokenizer) | source.ends
            yield _Session(self, translate, generator, tokenizer, words, stop).answers

    def _convert(self, source: Checkpoint, folder: Path) -> None:
        converters = library("ctranslate2.converters", "completer 'ctranslate2'")
        try:
            with quiet(), tempfile.TemporaryDirectory() as merged, atomic_folder(folder) as new:
                if self.adapter:
                    self._family().write_merged(Path(merged) / "model")
                read = Path(merged) / "model" if self.adapter else source.folder
                converters.TransformersConverter(str(read)).convert(str(new), force=True)
                file = new / "config.json"  # the library converts a model without a begin token, and does not read it
                stated = json.loads(file.read_text(encoding="utf-8"))
                file.write_text(json.dumps({key: value or "" for key, value in stated.items()}), encoding="utf-8")
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise ModelError(f"{source.folder}: CTranslate2 cannot convert it ({one_line(error)}).") from error


@dataclass(frozen=True)
class _Session:
    """A loaded model."""

    owner: CTranslate2
    library: Any
    generator: Any
    tokenizer: Tokenizer
    words: Sequence[str]
    stop: frozenset[int]
    """The tokens that end an answer."""

    def answers(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int] = ()
    ) -> Iterator[tuple[int, Completion]]:
        """Give the place of each prompt and its answer, prompts of like length together."""
        tokens = [prompt_tokens(self.owner.template, prompt, self.tokenizer) for prompt in prompts]
        order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        size = 1 if sampling.temperature else self.owner.batch
        for start in range(0, len(order), size):
            places = order[start : start + size]
            drawn = replace(sampling, seed=seeds[places[0]]) if seeds else sampling  # who draws is asked alone
            found = self._written([tokens[place] for place in places], drawn)
            for place, ids in zip(places, found, strict=True):
                text = answer_text(ids, self.stop, sampling, self.tokenizer)
                yield place, Completion(text.strip(), len(ids), len(tokens[place]))

    def _written(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[list[int]]:
        if sampling.temperature:
            asked = seed_of("answer", sampling.seed, " ".join(map(str, prompts[0])))
            self.library.set_random_seed(asked % 2**31)
        try:
            found = self.generator.generate_batch(
                [[self.words[token] for token in prompt] for prompt in prompts],
                end_token=[self.words[token] for token in sorted(self.stop)],
                return_end_token=True,
                max_length=sampling.max_new_tokens,
                include_prompt_in_result=False,
                sampling_topk=0 if sampling.temperature else 1,
                sampling_topp=sampling.top_p if sampling.temperature else 1,
                sampling_temperature=sampling.temperature or 1,
            )
        except (ValueError, RuntimeError) as error:
            raise CompletionError(f"ctranslate2: refused the prompts ({one_line(error)}).") from error
        return [list(one.sequences_ids[0]) for one in found]
