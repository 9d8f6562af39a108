"""A box that ends TLS between nodes and their server: it reads all that passes, and may change, repeat or lose any."""

import contextlib
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from fedloom.network import keys as k
from fedloom.network.channel import OPTIONS, grpc_library


class TlsRelay:
    """It has certificates on both sides: a server's towards nodes, and a node's, not enrolled, towards the server."""

    def __init__(self, made, name="gate"):
        self.home, authority = made.folder / name, made.folder / "ca"
        self.home.mkdir()
        self.pairs = {}
        for kind in ("server", "node"):
            key = self.home / f"{kind}.key"
            k.make_key(key)
            text, self.who = k.sign_request(authority, k.make_request(key, kind, name), kind)
            self.pairs[kind] = (key.read_bytes(), text.encode())
        self.authority = (authority / "ca.pem").read_bytes()
        self.up, self.down = [], []
        self.change_up = self.change_down = lambda name, number, data: [data]

    @contextlib.contextmanager
    def open(self, server_port):
        """Give the port at which nodes dial in, while the block runs."""
        grpc = grpc_library()
        asked = grpc.ssl_channel_credentials(self.authority, *self.pairs["node"])
        named = (*OPTIONS, ("grpc.ssl_target_name_override", "study.fedloom"))
        self.channel = grpc.secure_channel(f"127.0.0.1:{server_port}", asked, options=named)
        server = grpc.server(ThreadPoolExecutor(64), handlers=[Passing(self)], options=OPTIONS)
        shown = grpc.ssl_server_credentials([self.pairs["server"]], self.authority, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", shown)
        server.start()
        try:
            yield port
        finally:
            server.stop(0.1).wait()
            self.channel.close()

    def passed(self, method, frames, context):
        """Hand both ways on, as `change_up` and `change_down` say for each record of a call."""
        grpc, name = grpc_library(), method.rpartition("/")[2]
        sent, over = queue.Queue(), threading.Event()

        def read():
            with contextlib.suppress(Exception):
                for number, data in enumerate(frames):
                    self.up.append(data)
                    for one in self.change_up(name, number, data):
                        sent.put(one)
            sent.put(None)

        threading.Thread(target=read, daemon=True).start()
        answers = self.channel.stream_stream(method)(iter(sent.get, None))
        context.add_callback(lambda: (over.set(), answers.cancel()))
        try:
            for number, data in enumerate(answers):
                self.down.append(data)
                yield from self.change_down(name, number, data)
        except grpc.RpcError as error:
            if not over.is_set():
                context.abort(error.code(), error.details())


def Passing(relay):
    grpc = grpc_library()

    class Every(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.stream_stream_rpc_method_handler(
                lambda frames, context: relay.passed(details.method, frames, context)
            )

    return Every()


def chi_squared(data):
    """Of the histogram of bytes against equal counts, 255 degrees of freedom."""
    counts = torch.bincount(torch.frombuffer(bytearray(data), dtype=torch.uint8).long(), minlength=256).double()
    expected = len(data) / 256
    return float(((counts - expected) ** 2 / expected).sum())
