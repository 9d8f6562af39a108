"""Any server that speaks OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat).

The key is read from the environment variable that the settings name, when the completer is opened. It is kept in no
file, and taken out of whatever a server says. The client library retries by itself, with exponential back-off or after
the time that the server names: lost connections, timeouts, limits of rate and errors of the server, but not a quota
that is used up, which no waiting mends. A prompt that the server calls too long, or filters, has no answer; the others
are asked nevertheless.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from fedloom.base.errors import CompletionError, ConfigError, one_line
from fedloom.base.extras import http_errors, library
from fedloom.base.plugin import Positive, Range, plugin
from fedloom.completers._limits import limiting, not_taken
from fedloom.contracts.evaluation import Answer, Completer, Completion, Prompt, Sampling

if TYPE_CHECKING:
    from openai import APIError, OpenAI

__all__ = ["OpenAIServer"]

_QUOTA = "insufficient_quota"
_FOR_GOOD = re.compile(
    r"context.?(?:length|window|size)|content.?(?:filter|policy|management)|invalid_prompt|string_above_max",
    re.IGNORECASE,
)
"""What servers say, as code, type or message, of a prompt that they will never answer; every server has its own."""
_LOOPBACK = ("localhost", "::1")
_SHORTEST_SECRET = 8  # characters of a key below which it is a placeholder, which may stand in any text


@plugin("openai")
class OpenAIServer(Completer):
    """A model behind an address."""

    url: str = ""
    """Address of the interface, which often ends in /v1."""
    model: str = ""
    """The model's name on the server."""
    key_variable: str = ""
    """The NAME of the environment variable that holds the key; empty where the server wants none."""
    timeout_s: Positive = 120.0
    """Time for one answer, and for each part of it to come."""
    retries: Annotated[int, Range(0, 20)] = 5
    """Further attempts for a request, after 0.5 s, 1 s, 2 s and so on up to 8 s, or when the server says; for an answer
    that is none, too."""
    parallel: Annotated[int, Range(1, 64)] = 4
    """Requests under way at once."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the largest number of new tokens."""

    def check(self) -> None:
        """Refuse missing names, and addresses that are none or hold a secret."""
        parts = _address(self.url)
        if parts is None:
            found = "one that is none" if re.search("[@?#]", self.url) else repr(self.url)  # which may hold a secret
            raise ConfigError(f"url: found {found}, allowed is http(s)://host/path; name the server's interface.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                "url: holds more than host and path, which is no place for a secret; put the key into an environment "
                "variable and its name into key_variable."
            )
        if not self.model:
            raise ConfigError("model: missing; name the model as the server calls it.")

    def remote(self) -> str:
        """Return the host of the address, unless it is this machine's own."""
        host = urlsplit(self.url).hostname or ""
        return "" if host in _LOOPBACK or host.startswith("127.") else host

    def identity(self) -> str:
        """Return address and model; whether the model behind the name has changed nobody can tell."""
        return json.dumps({"openai": self.model, "url": self.url.rstrip("/")}, sort_keys=True)

    def require(self) -> None:
        """Refuse with ConfigError a missing library or key, and what the client itself takes for no address."""
        with self._client(self._key()):
            pass

    @contextlib.contextmanager
    def opened(self) -> Generator[Answer]:
        """Make a client; what `require` refuses raises ConfigError."""
        key = self._key()
        with self._client(key) as client:
            yield partial(self._answers, _Server(self, client, key))

    def _client(self, key: str) -> "OpenAI":
        openai = library("openai", "completer 'openai'")
        try:
            return openai.OpenAI(
                base_url=self.url,
                api_key=key or "none",
                timeout=self.timeout_s,
                max_retries=self.retries,
                http_client=openai.DefaultHttpxClient(
                    event_hooks={"response": [limiting(self.timeout_s), _give_up_on_quota]},
                    headers={"Accept-Encoding": "identity"},
                    follow_redirects=False,  # a prompt goes to the address that was named, and the key with it
                ),
            )
        except _client_errors(openai) as error:
            raise ConfigError(
                f"url: found {self.url!r}, of which no client can be made ({type(error).__name__}: "
                f"{_without_secret(error)}); correct it, or the proxy that the environment names."
            ) from None

    def together(self) -> int:
        """Return the requests under way at once."""
        return self.parallel

    def _key(self) -> str:
        if self.key_variable and not os.environ.get(self.key_variable):
            raise ConfigError(
                f"key_variable: no key in the environment variable {self.key_variable}; export it, or set another name."
            )
        key = os.environ[self.key_variable] if self.key_variable else ""
        if not re.fullmatch(r"[!-~]*", key):
            raise ConfigError(
                f"key_variable: the key in {self.key_variable} holds a blank, a line's end or a sign beyond ASCII, "
                "which no header may; export the key alone."
            )
        return key

    def _answers(
        self, server: "_Server", prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int] = ()
    ) -> Iterator[tuple[int, Completion]]:
        failed: BaseException | None = None
        with ThreadPoolExecutor(self.parallel) as pool:
            each = [replace(sampling, seed=seed) for seed in seeds] or [sampling] * len(prompts)
            futures = {pool.submit(server.answer, *one): at for at, one in enumerate(zip(prompts, each, strict=True))}
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    yield futures[future], future.result()
                elif failed is None:
                    failed = error
                    # One by one: what `shutdown` cancels is never handed to `as_completed`, which would wait forever.
                    for other in futures:
                        other.cancel()
        if failed is not None:
            raise failed


def _client_errors(openai: Any) -> tuple[type[Exception], ...]:
    """Return what the client raises or lets through."""
    return (openai.OpenAIError, ValueError, ImportError, OSError, *http_errors())


@dataclass(frozen=True)
class _Server:
    """A client with what its refusals are told by."""

    settings: OpenAIServer
    client: "OpenAI"
    key: str

    def __repr__(self) -> str:
        return f"_Server({self.settings!r})"

    def answer(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return the answer to one prompt, or why it never has one.

        Other refusals are CompletionErrors of one line, without the key.
        """
        import openai

        try:
            return self._asked(self._request(prompt, sampling))
        except not_taken() as error:
            refusal = self._error(self._hidden(str(error)), "It was not taken.")
        except openai.APIError as error:
            if _is_for_good(error):
                return Completion("", refused=self._hidden(one_line(error.message))[:200])
            refusal = self._refusal(error)
        except _client_errors(openai) as error:
            refusal = self._failure(error)
        raise refusal from None  # its cause holds the request, and with it the key

    def _asked(self, request: Mapping[str, Any]) -> Completion:
        """Return the answer; what is none is asked for again, as the client does where it gets nothing."""
        waits_s = iter([min(0.5 * 2**number, 8.0) for number in range(self.settings.retries)])
        while True:
            raw = self.client.chat.completions.with_raw_response.create(**request)
            try:
                return self._parsed(raw.text)
            except CompletionError:
                if (wait_s := next(waits_s, None)) is None:
                    raise
                time.sleep(wait_s)

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": turn.role, "content": turn.text} for turn in prompt],
            "temperature": sampling.temperature,
            self.settings.token_limit: sampling.max_new_tokens,
        }
        # Left out where they say nothing: not every server takes them.
        request |= {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
        request |= {"stop": list(sampling.stop)} if sampling.stop else {}
        return request | ({"seed": sampling.seed} if sampling.temperature > 0 else {})

    def _parsed(self, content: str) -> Completion:
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise self._garbage("no JSON") from None
        try:
            text = body["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise self._garbage("no choices[0].message.content in it") from None
        if text is not None and not isinstance(text, str):
            raise self._garbage("its content is no text")
        used = body.get("usage")
        counts = used if isinstance(used, Mapping) else {}
        n_tokens, prompt_tokens = (_count(counts.get(name)) for name in ("completion_tokens", "prompt_tokens"))
        return Completion(self._hidden(text or ""), n_tokens, prompt_tokens)

    def _garbage(self, what: str) -> CompletionError:
        found = f"the answer of '{self.settings.model}' is none that OpenAI's interface knows ({what})"
        return self._error(found, "Check that the url ends where the interface begins, often in /v1.")

    def _refusal(self, error: "APIError") -> CompletionError:
        return self._error(self._advice(error), f"The client says: {self._hidden(one_line(error.message))[:200]}")

    def _failure(self, error: Exception) -> CompletionError:
        said = self._hidden(f"{type(error).__name__}: {one_line(error)}")[:200]
        return self._error(f"the client cannot send the request ({said})", "Correct the url or the prompt.")

    def _error(self, found: str, advice: str) -> CompletionError:
        return CompletionError(f"{self.settings.url}: {found}; what was answered is kept. {advice}")

    def _advice(self, error: "APIError") -> str:
        import openai

        settings, variable = self.settings, self.settings.key_variable or "no key_variable"
        match error:
            case openai.APITimeoutError():
                return (
                    f"no answer within {settings.timeout_s:g} s, {settings.retries} retries included; raise timeout_s"
                )
            case openai.APIConnectionError():
                return "cannot be reached; start the server, or correct the url"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"refuses the key (from {variable}); put a valid one there"
            case openai.NotFoundError():
                return f"knows no model '{settings.model}', or no such path; correct model or url"
            case openai.RateLimitError() if _QUOTA in (error.code, error.type):
                return "the quota of this key is used up; raise it or use another key"
            case openai.RateLimitError():
                return f"too many requests, after {settings.retries} retries too; lower parallel or wait"
            case openai.InternalServerError():
                return f"the server fails, after {settings.retries} retries too; look at its log, then go on"
            case _:
                return "refuses the request; change the setting that it names"

    def _hidden(self, text: str) -> str:
        return text.replace(self.key, "[key]") if len(self.key) >= _SHORTEST_SECRET else text


def _address(url: str) -> SplitResult | None:
    """Return the parts of an address, None if it is none; `urlsplit` itself passes over signs and empty labels."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return None
    labels = host.removesuffix(".").split(".")
    right = url.isprintable() and " " not in url and all(0 < len(label) < 64 for label in labels)
    return parts if right and parts.scheme in ("http", "https") else None


def _is_for_good(error: "APIError") -> bool:
    """Return whether a server refuses this prompt and would go on to: other wrong requests are wrong in a setting."""
    import openai

    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 413, 422):
        return False
    return error.status_code == 413 or bool(_FOR_GOOD.search(f"{error.code} {error.type} {error.message}"))


def _give_up_on_quota(response: Any) -> None:
    """Tell the client, by the header that it obeys, not to try again where the quota is used up."""
    if response.status_code == 429:
        response.read()
        if _QUOTA in response.text:
            response.headers["x-should-retry"] = "false"


def _without_secret(error: Exception) -> str:
    """Return what is said, without words that name somebody at an address: the proxy's may stand with its password."""
    return re.sub(r"\S*@\S*", "[hidden]", one_line(error))


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0  # a truth value is an int, too
