"""A model in vLLM (https://docs.vllm.ai, `LLM.generate`), for machines with a GPU; `pip install fedloom[vllm]`.

Never run here: written against the documentation of vllm 0.11, on a machine that has neither a GPU nor the library.
What passes between is the same as with the completer `model`: tokens of our template in, an answer up to one of its end
tokens out. vLLM draws with a generator of its own, so drawn answers differ from those of `model`, greedy ones agree up
to rounding.
"""

import contextlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any

from fedloom.base.errors import CompletionError, ConfigError, one_line
from fedloom.base.extras import library, require
from fedloom.base.files import file_sha256
from fedloom.base.plugin import AtLeast, Range, default, plugin
from fedloom.base.rng import seed_of
from fedloom.completers._identity import template_table
from fedloom.contracts.evaluation import Answer, Completer, Completion, Prompt, Sampling
from fedloom.contracts.federated import Template
from fedloom.models.generation import prompt_tokens, stop_tokens

__all__ = ["Vllm"]


@plugin("vllm")
class Vllm(Completer):
    """A model by folder or hub name, with an adapter if one is named."""

    path: str = ""
    """Folder or hub name of the model: what `fedloom export --merged` writes, or the base of an adapter."""
    adapter: str = ""
    """Folder of an adapter in PEFT's format."""
    adapter_rank: AtLeast = 16
    """Rank that vLLM prepares for, at least the adapter's."""
    template: Template = field(default_factory=default(Template, "own"))
    """How turns become text; own: the tokenizer's."""
    memory: Annotated[float, Range(0, 1, low_excluded=True)] = 0.9
    """Share of the GPU's memory that vLLM takes."""
    group: AtLeast = 256
    """Prompts handed over at once."""

    def check(self) -> None:
        """Refuse a completer without a model."""
        if not self.path:
            raise ConfigError("vllm: path: missing; name the folder or hub name of a model.")

    def identity(self) -> str:
        """Return the names of model and adapter, the hashes of their files where they are local, and the template."""
        folders = [Path(name) for name in (self.path, self.adapter) if name]
        files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file.is_file()]
        known = {"model": [folder.name for folder in folders], "files": [file_sha256(file) for file in files]}
        return json.dumps({"vllm": known, "template": template_table(self.template)}, sort_keys=True)

    def require(self) -> None:
        """Refuse a missing library with ConfigError."""
        require("completer 'vllm'", "vllm")

    @contextlib.contextmanager
    def opened(self) -> Generator[Answer]:
        """Start vLLM; without the library this raises ConfigError."""
        vllm, lora = (library(module, "completer 'vllm'") for module in ("vllm", "vllm.lora.request"))
        engine = vllm.LLM(
            model=self.path,
            enable_lora=bool(self.adapter),
            max_lora_rank=self.adapter_rank,
            gpu_memory_utilization=self.memory,
            trust_remote_code=False,
        )
        request = lora.LoRARequest("adapter", 1, self.adapter) if self.adapter else None

        def answer(
            prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int] = ()
        ) -> Iterator[tuple[int, Completion]]:
            tokens = [prompt_tokens(self.template, prompt, engine.get_tokenizer()) for prompt in prompts]
            stop = sorted(stop_tokens(self.template, engine.get_tokenizer()))
            each = [replace(sampling, seed=seed) for seed in seeds] or [sampling] * len(tokens)
            options = [_options(prompt, own, stop) for prompt, own in zip(tokens, each, strict=True)]
            drawn = [vllm.SamplingParams(**one) for one in options]
            asked = [{"prompt_token_ids": prompt} for prompt in tokens]
            try:
                outputs = engine.generate(asked, drawn, lora_request=request, use_tqdm=False)
            except ValueError as error:  # a prompt beyond the model's context, for one
                raise CompletionError(f"vllm: refused the prompts ({one_line(error)}).") from error
            for place, output in enumerate(outputs):
                found = output.outputs[0]
                yield place, Completion(found.text.strip(), len(found.token_ids), len(output.prompt_token_ids))

        yield answer

    def together(self) -> int:
        """Return a group, in which vLLM schedules by itself."""
        return self.group


def _options(prompt: Sequence[int], sampling: Sampling, stop: Sequence[int]) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p or 1e-9,  # vLLM wants it above 0
        "max_tokens": sampling.max_new_tokens,
        "stop": list(sampling.stop),
        "stop_token_ids": list(stop),
        "seed": seed_of("answer", sampling.seed, " ".join(map(str, prompt))),
    }
