"""Two pages of plain HTTP for those who operate a server: `/metrics` for Prometheus, `/ready` for whoever routes nodes.

Both are there from before the server is ready until it has ended, on loopback alone: what is said is in clear.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Generator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fedloom.base.errors import ConfigError, RunError
from fedloom.network.channel import is_loopback

__all__ = ["scraped"]

_PATIENCE_S = 5.0


@contextlib.contextmanager
def scraped(address: str, text: Callable[[], str], state: Callable[[], str]) -> Generator[int]:
    """Serve both pages while the block runs, and give the port; with "" as address there are none, and the port is 0.

    `state` is "ready", or else why not, which `/ready` answers with status 503. ConfigError off loopback.
    """
    if not address:
        yield 0
        return
    host, _, port = address.rpartition(":")
    if not is_loopback(address) or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(
            f"metrics: found {address} without certificates, allowed is a loopback address such as 127.0.0.1:9464; let "
            "what scrapes run on this machine, or put a proxy with TLS before it."
        )
    pages: _Pages = {
        "/metrics": lambda: (HTTPStatus.OK, "text/plain; version=0.0.4", text()),
        "/ready": lambda: (
            HTTPStatus.OK if state() == "ready" else HTTPStatus.SERVICE_UNAVAILABLE,
            "text/plain",
            f"{state()}\n",
        ),
    }
    server = _bound(host.strip("[]"), int(port), pages, address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


_Pages = dict[str, Callable[[], tuple[HTTPStatus, str, str]]]


def _bound(host: str, port: int, pages: _Pages, address: str) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

    class Handler(_Handler):
        known = pages

    try:
        return Server((host, port), Handler)
    except OSError as error:
        raise RunError(f"metrics: {address} is taken or is not of this machine; choose another --metrics.") from error


class _Handler(BaseHTTPRequestHandler):
    known: _Pages
    timeout = _PATIENCE_S
    server_version, sys_version = "fedloom", ""

    def do_GET(self) -> None:
        """Answer one of the pages, and nothing else."""
        if self.path not in self.known:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status, kind, text = self.known[self.path]()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line for each scrape tells nobody anything."""
