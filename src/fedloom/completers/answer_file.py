"""Prompts answered once: a file of answers by content, a budget, and a completer opened only if something is left.

The file is JSON Lines, a line per answer with all that it depends on: who answered (`Completer.identity`), the prompt
and how the answer was drawn. The SHA-256 of those three is a line's key, so nothing is asked twice, and a line whose
question was altered is found out. Lines are appended as answers come; a prompt that can never be answered has a line,
too, with the reason as `refused`. A last line without its end, which a kill leaves behind, is cut off; any other damage
is refused.
"""

import contextlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from fedloom.base.errors import CompletionError, ConfigError, RunError
from fedloom.base.files import disk_errors, held, json_sha256, write_atomic
from fedloom.base.machine import peak_bytes
from fedloom.base.plugin import AtLeast, check_ranges
from fedloom.contracts.evaluation import Answer, Completer, Completion, Prompt, Sampling

__all__ = ["Asker", "Budget", "Counts", "Request", "asking", "bytes_sent", "refuse_remote", "write_cost"]

Request = tuple[Prompt, Sampling]

_SHORT_KEY = 16  # signs of a key that tell prompts of a run apart
_MARKUP_TOKENS = 64  # what templates put around a prompt, in the estimate of what it may cost


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be asked of one completer at most, by all blocks of `asking` with one file together.

    What its answers in the file have cost is spent already; looking one of them up again costs nothing.
    """

    max_requests: AtLeast | None = None
    """Left out: no limit."""
    max_tokens: AtLeast | None = None
    """Tokens of prompts and answers together. Left out: no limit."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass
class Counts:
    """What this block asked: requests answered, answers found in the file, tokens as far as they are known."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


@contextlib.contextmanager
def asking(completer: Completer, cache: Path, budget: Budget | None = None) -> Generator["Asker"]:
    """Give what answers requests while the block runs; `cache` is made if need be and held against other processes.

    Raises RunError if the file is in use, damaged or cannot be written.
    """
    with disk_errors(cache):
        cache.parent.mkdir(parents=True, exist_ok=True)
        file = cache.open("a+b")
    busy = f"{cache}: somebody else is writing answers to it; wait for the end of that."
    with file, held(cache.with_name(f".{cache.name}.lock"), busy), contextlib.ExitStack() as stack:
        yield Asker(completer, cache, file, budget or Budget(), stack)


class Asker:
    """Answers requests from the file or by asking; made by `asking`."""

    def __init__(
        self, completer: Completer, path: Path, file: IO[bytes], budget: Budget, stack: contextlib.ExitStack
    ) -> None:
        self.counts = Counts()
        self._completer, self._identity, self._budget = completer, completer.identity(), budget
        self._path, self._file, self._stack = path, file, stack
        self._answer: Answer | None = None
        kept = _read(path, file)
        mine = [one.cost for one in kept if one.identity == self._identity]
        self._asked, self._spent = len(mine), sum(mine)
        self._known = {one.key: one.completion for one in kept}

    def ask(self, requests: Sequence[Request]) -> list[Completion]:
        """Return the answers in the order of the requests; equal requests are asked once.

        Raises CompletionError if the completer gives no answer, or before the budget would be passed; all answers given
        until then are in the file, and the same call made again asks for the rest only.
        """
        keys = [_key(_record(self._identity, prompt, sampling)) for prompt, sampling in requests]
        left = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._known}
        self.counts.cached += len(keys) - len(left)
        together: dict[Sampling, list[tuple[str, Request]]] = {}
        for key, request in left.items():
            together.setdefault(replace(request[1], seed=0), []).append((key, request))
        for wanted in together.values():
            while wanted:
                group = self._within_budget(wanted[: self._completer.together()])
                self._ask_group(group)
                wanted = wanted[len(group) :]
        return [self._known[key] for key in keys]

    def _within_budget(self, group: list[tuple[str, Request]]) -> list[tuple[str, Request]]:
        """Return the first prompts of a group that surely fit into the budget; if there is none, refuse."""
        requests, tokens = self._budget.max_requests, self._budget.max_tokens
        if requests is not None:
            group = group[: max(0, requests - self._asked)]
        if tokens is not None:
            total, fitting = self._spent, 0
            for _, request in group:
                total += _most_of(request)
                fitting += total <= tokens
            group = group[:fitting]
        if not group:
            by_tokens = requests is None or self._asked < requests
            limit, name = (f"{tokens} tokens", "max_tokens") if by_tokens else (f"{requests} requests", "max_requests")
            raise CompletionError(
                f"{self._path}: the next request could pass the budget of {limit} ({self._asked} requests and "
                f"{self._spent} tokens are spent, from the first start on); what was answered is kept: raise "
                f"{name} to go on, of a run in its run.toml."
            )
        return group

    def _ask_group(self, group: Sequence[tuple[str, Request]]) -> None:
        if self._answer is None:
            self._answer = self._stack.enter_context(self._completer.opened())
        missing = set(range(len(group)))
        prompts, samplings = zip(*(request for _, request in group), strict=True)
        seeds = [one.seed for one in samplings]
        own = (seeds,) if len(set(seeds)) > 1 else ()
        for place, completion in self._answer(prompts, samplings[0], *own):
            key, request = group[place]
            told = {name: value for name, value in asdict(completion).items() if name != "refused" or value}
            self._write({"key": key, **_record(self._identity, *request), **told})
            self._known[key] = completion
            self._count(_most_of(request), completion)
            missing.remove(place)
        if missing:
            raise CompletionError(f"{self._path}: no answer came to {len(missing)} of {len(group)} prompts; ask again.")

    def _write(self, record: dict[str, Any]) -> None:
        with disk_errors(self._path):
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()

    def _count(self, most: int, completion: Completion) -> None:
        self.counts.calls += 1
        self.counts.prompt_tokens += completion.prompt_tokens
        self.counts.answer_tokens += completion.n_tokens
        self._asked += 1
        self._spent += _cost(most, completion)


def _most_tokens(texts: Iterable[str], max_new_tokens: int) -> int:
    """Return what a request may cost at most: a token has a byte at least."""
    return sum(len(text.encode(errors="replace")) for text in texts) + _MARKUP_TOKENS + max_new_tokens


def _most_of(request: Request) -> int:
    prompt, sampling = request
    return _most_tokens([turn.text for turn in prompt], sampling.max_new_tokens)


def _cost(most: int, completion: Completion) -> int:
    """Return the tokens of a request, where they are not told the most that they may be; a refusal costs none."""
    known = completion.refused or (completion.prompt_tokens and completion.n_tokens)
    return completion.prompt_tokens + completion.n_tokens if known else most


# ---------------------------------------------------------------------------------------------------------- the file


def refuse_remote(key: str, completer: Completer, what: str, *, allowed: bool) -> None:
    """Refuse a completer on another machine unless that is allowed; `what` says why it matters."""
    if (host := completer.remote()) and not allowed:
        raise ConfigError(
            f"{key}: '{completer.name}' answers on {host}, and {what}; take a completer on this machine, or set "
            "allow_remote = true, by which every prompt is in the ledger."
        )


def bytes_sent(asked: Sequence[tuple[Completer, Path]]) -> dict[str, int]:
    """Return the bytes of each prompt that a completer on another machine has answered, by what the ledger calls it.

    A prompt goes by the beginning of its key in its file of answers, where its text is.
    """
    sent: dict[str, int] = {}
    for completer, path in asked:
        host, identity = completer.remote(), completer.identity()
        lines = path.read_text(encoding="utf-8").splitlines() if host and path.is_file() else []
        for one in (one for one in map(json.loads, lines) if one["identity"] == identity):
            n_bytes = sum(len(text.encode(errors="replace")) for _, text in one["prompt"])
            sent[f"prompt {one['key'][:_SHORT_KEY]} to {host}"] = n_bytes
    return sent


def write_cost(path: Path, counts: Any, wall_s: float) -> None:
    """Write what this process has cost, in a file of its own, as no two take as long; `counts` are numbers by name."""
    cost = {"wall_s": round(wall_s, 3), **vars(counts), "peak_bytes": peak_bytes()}
    write_atomic(path, json.dumps(cost, indent=2) + "\n")


@dataclass(frozen=True)
class _Kept:
    """A line of the file."""

    key: str
    identity: str
    cost: int
    completion: Completion


def _record(identity: str, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    return {
        "identity": identity,
        "prompt": [[turn.role, turn.text] for turn in prompt],
        "sampling": asdict(sampling),
    }


def _key(record: dict[str, Any]) -> str:
    return json_sha256([record["identity"], record["prompt"], record["sampling"]])


def _read(path: Path, file: IO[bytes]) -> list[_Kept]:
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with disk_errors(path):
            os.truncate(path, whole)
    return list(_answers(path, content[:whole].splitlines()))


def _answers(path: Path, lines: Iterable[bytes]) -> Iterator[_Kept]:
    for number, line in enumerate(lines, 1):
        parsed = _parsed(line)
        if parsed is None:
            raise RunError(
                f"{path}: line {number} is no answer as it was written; remove the line to have the question asked "
                "again, or name another file."
            )
        yield parsed


def _parsed(line: bytes) -> _Kept | None:
    try:
        record = json.loads(line)
        answer = [record[name] for name in ("text", "n_tokens", "prompt_tokens")] + [record.get("refused", "")]
        key, stated = _key(record), record["key"]
        most = _most_tokens([text for _, text in record["prompt"]], record["sampling"]["max_new_tokens"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if stated != key or [type(value) for value in answer] != [str, int, int, str]:
        return None
    completion = Completion(*answer)
    return _Kept(key, record["identity"], _cost(most, completion), completion)
