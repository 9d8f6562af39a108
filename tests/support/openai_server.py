"""A real OpenAI-compatible server on loopback over any completer, which can be told to fail: for tests of judges.

    def test_something(openai_server):
        server = openai_server(completer, model="judge", key="secret-key", failures={3: "rate_limit", 4: "closed"})
        OpenAIServer(url=server.url, model="judge", key_variable="...")

`failures` names what happens to the n-th request, counted from 1; a request that is tried again is a further one. A
function from the number to a name, or to None, does as well: `failures=lambda number: "server_error"`.
"""

import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

FAILURES = (
    *("rate_limit", "quota", "server_error", "hang", "closed", "cut", "garbage", "nested", "true_count", "page"),
    *("empty", "no_content", "filtered", "too_long", "too_long_vllm", "too_large", "wrong_setting"),
    *("drip", "endless", "packed", "elsewhere", "here"),
)


@dataclass
class Served:
    """A running server: where it is and what it was asked."""

    url: str
    bodies: list[dict] = field(default_factory=list)
    """What each chat request held."""
    headers: list[dict] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def prompts(self) -> list[str]:
        """The last turn of each chat request."""
        return [body["messages"][-1]["content"] for body in self.bodies]


@contextlib.contextmanager
def serving(
    completer,
    *,
    model: str = "judge",
    key: str = "",
    failures: Mapping[int, str] | Callable[[int], str | None] = {},  # noqa: B006
) -> Iterator[Served]:
    """Serve a completer in a thread while the block runs."""
    with completer.opened() as answer:
        server = _Server(("127.0.0.1", 0), _Handler)
        server.answer, server.model, server.key = answer, model, key
        server.failures = failures.get if isinstance(failures, Mapping) else failures
        server.lock = threading.Lock()
        server.served = Served(f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.served
        finally:
            server.served.closing.set()
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def openai_server():
    """Start servers with `openai_server(completer, model=..., key=..., failures=...)`; they stop with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda completer, **options: stack.enter_context(serving(completer, **options))


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for them

    def handle_error(self, request, client_address):
        """Say nothing of clients that have gone away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/v1/models":
            self._reply(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})
        else:
            self._refuse(404, "not_found", "no such path")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._refuse(404, "not_found", "no such path")
            return
        with self.server.lock:
            self.server.served.bodies.append(body)
            self.server.served.headers.append(dict(self.headers))
            number = len(self.server.served.bodies)
        failure = self.server.failures(number)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if failure:
            self._fail(failure, body)
        elif self.server.key and given != self.server.key:
            self._refuse(401, "invalid_api_key", f"Incorrect API key provided: {given}.")
        elif body["model"] != self.server.model:
            self._refuse(404, "model_not_found", f"The model '{body['model']}' does not exist.")
        else:
            self._reply(200, self._completion(body))

    def _completion(self, body):
        from fedloom.contracts.evaluation import Sampling
        from fedloom.contracts.examples import Turn

        prompt = tuple(Turn(message["role"], message["content"]) for message in body["messages"])
        sampling = Sampling(
            max_new_tokens=body.get("max_tokens") or body.get("max_completion_tokens") or 16,
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            stop=tuple(body.get("stop", ())),
            seed=body.get("seed", 0),
        )
        with self.server.lock:
            [(_, found)] = self.server.answer([prompt], sampling)
        return _chat(self.server.model, found.text, found.prompt_tokens, found.n_tokens)

    def _fail(self, failure, body):
        match failure:
            case "rate_limit":
                self._refuse(429, "rate_limit_exceeded", "Rate limit reached.", {"Retry-After": "0.05"})
            case "quota":
                self._refuse(429, "insufficient_quota", "You exceeded your current quota.", {"Retry-After": "0.05"})
            case "filtered":
                self._refuse(400, "content_filter", "The response was filtered.")
            case "too_long":
                self._refuse(400, "context_length_exceeded", "Reduce the length of the messages.")
            case "too_long_vllm":
                self._refuse(400, 400, "This model's maximum context length is 64 tokens.")
            case "too_large":
                self._refuse(413, None, "Payload Too Large")
            case "wrong_setting":
                self._refuse(400, "unsupported_parameter", "Unsupported parameter: 'max_tokens'.")
            case "server_error":
                self._refuse(500, "server_error", "The server had an error.", {"Retry-After": "0.05"})
            case "hang":
                self.server.served.closing.wait(30)
                self.close_connection = True
            case "closed":
                self.close_connection = True
            case "cut":
                self._send(200, b'{"choices": [', {"Content-Type": "application/json"}, length=500)
                self.close_connection = True
            case "garbage":
                self._send(200, b'{"choices": [}', {"Content-Type": "application/json"})
            case "nested":
                self._send(200, b"[" * 200_000, {"Content-Type": "application/json"})
            case "true_count":
                self._reply(200, _chat(body["model"], "[[7]]", 3, True))
            case "page":
                self._send(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
            case "empty":
                self._reply(200, _chat(body["model"], "", 0, 0) | {"choices": []})
            case "no_content":
                self._reply(200, _chat(body["model"], None, 3, 0))
            case "drip":  # a byte now and then, so that no single read is ever late
                self._send(200, b"{", {"Content-Type": "application/json"}, length=100_000)
                while not self.server.served.closing.wait(0.05):
                    self.wfile.write(b" ")
            case "endless":
                self._send(200, b"", {"Content-Type": "application/json"}, length=2**40)
                while not self.server.served.closing.is_set():
                    self.wfile.write(b" " * 2**20)
            case "packed":
                headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
                self._send(200, gzip.compress(b" " * 10**7), headers)
            case "elsewhere":
                self._send(307, b"", {"Location": "http://203.0.113.1/v1/chat/completions"})
            case "here":
                self._send(308, b"", {"Location": "/v1/chat/completions/"})
            case _:
                raise ValueError(failure)

    def _refuse(self, status, code, message, headers={}):  # noqa: B006
        error = {"message": message, "type": code, "param": None, "code": code}
        self._send(status, json.dumps({"error": error}).encode(), {"Content-Type": "application/json", **headers})

    def _reply(self, status, record):
        self._send(status, json.dumps(record).encode(), {"Content-Type": "application/json"})

    def _send(self, status, content, headers, *, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *args):
        """Say nothing."""


def _chat(model, text, prompt_tokens, n_tokens):
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": n_tokens,
            "total_tokens": prompt_tokens + n_tokens,
        },
    }
