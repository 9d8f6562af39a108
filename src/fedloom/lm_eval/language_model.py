"""Our model behind lm-eval's interface: log-likelihoods from packed batches, answers from the key-value cache.

Texts become tokens, and contexts that are too long are cut from the left, exactly as in lm-eval's own model `hf`
(https://github.com/EleutherAI/lm-evaluation-harness, `lm_eval/models/huggingface.py`, 0.4.13), so that scores are equal
for equal weights; only the arithmetic is ours. With a template, the prompt is the template's, and the blank with which
most templates begin an answer goes where training had it: to the answer.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError, DataError, ModelError
from fedloom.base.extras import require
from fedloom.base.tree import Tree
from fedloom.contracts.chunked_loss import LARGE
from fedloom.contracts.evaluation import Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.contracts.language import Encoded, LanguageModel, PackedBatch
from fedloom.models.generation import complete_tokens, stop_tokens
from fedloom.models.packing import pack

if TYPE_CHECKING:
    from lm_eval.api.model import TemplateLM

__all__ = ["Scorer", "harness_model", "is_cut"]

Pair = tuple[Sequence[int], Sequence[int]]
"""The tokens of a context and of its continuation."""

_ROW_TOKENS = 4096  # of a packed batch
_NEW_TOKENS = 256  # of an answer where a task does not say: lm-eval's default
_CONTEXT = 2048  # of a model whose configuration does not say: lm-eval's default


@dataclass(frozen=True)
class Scorer:
    """A model with parameters and, if wanted, a template: what lm-eval asks, on tokens and turns."""

    model: LanguageModel
    params: Tree
    template: Template | None
    batch: int = 32
    """Contexts scored, or answers written, together."""

    @cached_property
    def context(self) -> int:
        """Tokens that the model takes at once."""
        return self.model.context_size or _CONTEXT

    # -------------------------------------------------------------------------------------------------- likelihoods

    def likelihoods(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Return of each continuation its log-probability and whether greedy decoding would write it.

        Continuations of one token after equal contexts, as the letters of a multiple choice, share one pass.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (context, continuation) in enumerate(pairs):
            self._check(context, continuation)
            groups.setdefault((len(continuation), *context, *continuation[:-1]), []).append(index)
        result = [(0.0, False)] * len(pairs)
        by_length = sorted(groups.values(), key=lambda group: -len(pairs[group[0]][0]) - len(pairs[group[0]][1]))
        for chosen in self._batches(by_length, pairs):
            first = [pairs[group[0]] for group in chosen]
            with torch.no_grad():
                logits_SV = self.model.token_logits(self.params, self._packed(first))
                logp_SV = logits_SV.to(torch.promote_types(logits_SV.dtype, torch.float32)).log_softmax(-1)
            parts = logp_SV.split([len(continuation) for _, continuation in first])
            for group, logp_TV in zip(chosen, parts, strict=True):
                greedy = logp_TV.argmax(-1).tolist()
                for index in group:
                    wanted = list(pairs[index][1])
                    chosen_T = logp_TV.gather(1, torch.tensor(wanted, device=logp_TV.device)[:, None])
                    result[index] = float(chosen_T.sum()), greedy == wanted
        return result

    def log_probabilities(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the log-probability of each continuation alone: long ones, whose logits are never held at once."""
        result: list[float] = []
        for pair in pairs:
            self._check(*pair)
            with torch.no_grad():
                losses_S = self.model.token_losses(self.params, self._packed([pair]))
            result.append(-float(losses_S.double().sum()))
        return result

    def _check(self, context: Sequence[int], continuation: Sequence[int]) -> None:
        if not context or not continuation:
            raise DataError("a question has an empty context or an answer of no token: it cannot be scored; remove it.")
        if len(continuation) > self.context:
            raise DataError(
                f"an answer has {len(continuation)} tokens, the model takes {self.context}: choose shorter answers."
            )

    def _batches(self, groups: Sequence[list[int]], pairs: Sequence[Pair]) -> Iterator[list[list[int]]]:
        """Give groups together as long as neither their tokens nor their logits are too many."""
        vocabulary = len(self.model.tokenizer)
        chosen: list[list[int]] = []
        tokens = logits = 0
        for group in groups:
            context, continuation = pairs[group[0]]
            tokens += min(len(context) + len(continuation), self.context)
            logits += len(continuation) * vocabulary
            if chosen and (tokens > _ROW_TOKENS or logits > LARGE or len(chosen) == self.batch):
                yield chosen
                chosen, tokens, logits = [], len(context) + len(continuation), len(continuation) * vocabulary
            chosen.append(group)
        if chosen:
            yield chosen

    def _packed(self, pairs: Sequence[Pair]) -> PackedBatch:
        """Return the batch that asks for the continuations; their last tokens are targets and no inputs."""
        items: list[Encoded] = []
        asked: list[Tensor] = []
        start = 0
        for context, continuation in pairs:
            tokens_T = torch.tensor([*context, *continuation][-self.context - 1 : -1], dtype=torch.int32)
            items.append(Encoded(tokens_T, torch.zeros(len(tokens_T), dtype=torch.bool)))
            start += len(tokens_T)
            asked.append(torch.arange(start - len(continuation), start))
        batch = pack([items], self.model.device, width=self.model.width)
        targets = torch.tensor([token for _, continuation in pairs for token in continuation])
        return replace(batch, asked_S=torch.cat(asked).to(self.model.device), targets_S=targets.to(self.model.device))

    # ------------------------------------------------------------------------------------------------------ answers

    def answers(self, tokens: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """Return what follows each context, up to the first stop text."""
        room = self.context - sampling.max_new_tokens
        if room <= 0:
            raise ConfigError(
                f"a task asks for {sampling.max_new_tokens} new tokens, the model takes {self.context} in all: leave "
                "the task out or take a model with a longer context."
            )
        prompts = [list(prompt[-room:]) for prompt in tokens]
        texts = [""] * len(prompts)
        stop = self._stop()
        for place, answer in complete_tokens(self.model, self.params, prompts, sampling, stop=stop, batch=self.batch):
            texts[place] = answer.text
        return texts

    def _stop(self) -> frozenset[int]:
        tokenizer = self.model.tokenizer
        own: list[Any] = [*stop_tokens(self.template, tokenizer)] if self.template else [tokenizer.eos_token_id]
        return self.model.ends | {end for end in own if isinstance(end, int)}

    # ------------------------------------------------------------------------------------------------------ prompts

    def blank(self) -> str:
        """Return the white space between a prompt in the template and its answer, which belongs to the answer."""
        if not self.template:
            return ""
        pieces = self.template.pieces((Turn("user", "0"), Turn("assistant", "0")), self.model.tokenizer)
        answer = next(piece.text for piece in pieces if piece.supervised)
        return answer[: len(answer) - len(answer.lstrip())]

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Return a conversation in the template, up to where an answer begins or, with a begun answer, behind that."""
        if not self.template:
            raise ModelError("a prompt in a template was asked for, but none was given; leave out --plain.")
        begun = turns[-1].text if turns[-1].role == "assistant" else ""
        asked = turns[:-1] if turns[-1].role == "assistant" else turns
        pieces = self.template.pieces(asked, self.model.tokenizer)
        return "".join(piece.text for piece in pieces) + self.blank() + begun


def harness_model(scorer: Scorer) -> "TemplateLM":
    """Return the model as lm-eval asks it; a missing lm-eval raises ConfigError."""
    require("closed-ended tasks", "lm_eval")
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    tokenizer: Any = scorer.model.tokenizer

    class _HarnessModel(TemplateLM):
        """lm-eval's requests, passed on as tokens."""

        @property
        def eot_token_id(self) -> int:
            return tokenizer.eos_token_id

        @property
        def prefix_token_id(self) -> int:
            return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id

        @property
        def tokenizer_name(self) -> str:
            return scorer.model.base_id

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            begun = string.startswith(tokenizer.decode(self.prefix_token_id))
            adds = not begun and (scorer.template is None or scorer.template.begins)
            special = adds if add_special_tokens is None else add_special_tokens
            return tokenizer.encode(string, add_special_tokens=special)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return scorer.likelihoods([(context, continuation) for _, context, continuation in requests])

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            return [self._rolling(request.args[0]) for request in requests]

        def _rolling(self, text: str) -> float:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=scorer.context,
                context_len=1,
            )
            return sum(scorer.log_probabilities([make_disjoint_window(window) for window in windows]))

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return _answers(scorer, self.tok_encode, [request.args for request in requests])

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return scorer.prompt([Turn(turn["role"], turn["content"]) for turn in chat_history])

    return _HarnessModel()


def _answers(
    scorer: Scorer, encode: Callable[[str], list[int]], asked: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """Return the answer to each context under its own options, those with equal options together.

    A draw depends on context and seed alone, so a request that came before gets a seed of its own: how often it came.
    """
    groups: dict[Sampling, list[int]] = {}
    seen: Counter[tuple[str, Sampling]] = Counter()
    for index, (context, options) in enumerate(asked):
        sampling = _sampling(options)
        repeat = seen[context, sampling]
        seen[context, sampling] += 1
        if repeat and sampling.temperature > 0:
            sampling = replace(sampling, seed=sampling.seed + repeat)
        groups.setdefault(sampling, []).append(index)
    blank, result = scorer.blank(), [""] * len(asked)
    for sampling, indices in groups.items():
        contexts = [asked[index][0] for index in indices]
        # The blank is the answer's: a prompt ends before it, and the text begins behind it.
        tokens = [encode(context.removesuffix(blank)) for context in contexts]
        for index, answer in zip(indices, scorer.answers(tokens, sampling), strict=True):
            result[index] = answer.removeprefix(blank)
    return result


def is_cut(scorer: Scorer, harness: "TemplateLM", arguments: Sequence[Any]) -> bool:
    """Return whether the context of a request of lm-eval's is longer than the model takes: its start is lost."""
    if len(arguments) == 1:  # a text whose every token is scored, in as many windows as it takes
        return False
    context, rest = arguments
    if isinstance(rest, str):
        return len(harness.tok_encode(context + rest)) > scorer.context + 1
    return len(harness.tok_encode(context)) > scorer.context - _sampling(rest).max_new_tokens


def _sampling(options: Mapping[str, Any]) -> Sampling:
    """Return lm-eval's generation options as ours; any that would change an answer and is unknown is refused."""
    known = {"until", "max_gen_toks", "max_new_tokens", "max_tokens", "do_sample", "temperature", "top_p"}
    odd = sorted(options.keys() - known)
    if odd:
        raise ConfigError(f"a task asks for the generation option '{odd[0]}'; allowed are {', '.join(sorted(known))}.")
    until = options.get("until") or []
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    limits = [options[name] for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if name in options]
    return Sampling(
        max_new_tokens=int(limits[0]) if limits else _NEW_TOKENS,
        temperature=float(options.get("temperature", 0.0)) if options.get("do_sample") else 0.0,
        top_p=float(options.get("top_p", 1.0)),
        stop=stop,
    )
