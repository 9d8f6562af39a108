"""Rounds over a Flower federation: SuperLink and SuperNodes carry envelopes, and run nothing.

Both halves are programs that stay: a node takes the tasks of its SuperNode (`--isolation process`), a server the task
of its SuperLink that `flwr run` has made. Each task comes with a bundle: it is never unpacked, never imported, and
nothing is asked of it. An envelope travels as the bytes of one array; an array is not read as numbers, and nothing is
unpickled.

This is the only module that knows Flower. It uses interfaces that Flower keeps to itself, which change from one month
to the next: one version is allowed, the one it was tested with.
"""

import contextlib
import logging
import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fedloom.base.errors import ConfigError, FedloomError, MissingFileError, RunError
from fedloom.base.extras import http_errors, library, require
from fedloom.network.channel import is_loopback
from fedloom.network.keys import read_private
from fedloom.network.link import Unreachable

__all__ = ["FlowerCalls", "FlowerPlace", "FlowerPost", "nothing", "serverapp_task"]

_log = logging.getLogger(__name__)
_TESTED = "1.42."
_RECORD, _ARRAY = "fedloom", "frames"
_LOOK_S, _ALIVE_S = 0.2, 10.0
"""Seconds between two looks for a task, and between two signs of life of one that is held."""

nothing = None
"""What a bundle of a fedloom run names as its two apps: there is no code in it, and none of ours is called by it."""


def _flwr(module: str) -> Any:
    require("flower", "flwr")
    found = metadata.version("flwr")
    if not found.startswith(_TESTED):
        raise ConfigError(
            f"flower: found flwr {found}, allowed is {_TESTED}x, whose own interfaces this was tested with; make an "
            "environment with constraints-flower.txt (docs/flower.md)."
        )
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    return library(f"flwr.{module}" if module else "flwr", "flower")


@dataclass(frozen=True)
class FlowerPlace:
    """Where tasks are taken: a SuperNode's or a SuperLink's Runtime API, and the secret that its operator has set."""

    address: str
    secret: Path
    root: Path | None = None
    """The authority of its certificate; without it the address is a loopback one."""

    def __post_init__(self) -> None:
        if self.root is None and not is_loopback(self.address):
            raise ConfigError(
                f"flower: found {self.address} without --flower-ca, allowed is a loopback address; off loopback the "
                "SuperNode or SuperLink has a certificate (--ssl-certfile), and --flower-ca names its authority's."
            )
        if self.root is not None and not self.root.is_file():
            raise MissingFileError(f"{self.root}: no such file; it has the authority's certificate of {self.address}.")
        read_private(self.secret)  # a file that others may read is refused

    def client(self, *interceptors: Any) -> Any:
        """Return a client of the Runtime API."""
        http = _flwr("supercore.interceptors")
        return _flwr("supercore.runtime").RuntimeHttpClient.from_server_address(
            self.address,
            self.root is None,
            self.root.read_bytes() if self.root else None,
            [http.RuntimeVersionHttpInterceptor(component_name="fedloom"), *interceptors],
        )

    def executor(self) -> Any:
        """Return a client that may take tasks."""
        return self.client(
            _flwr("supercore.interceptors").SuperExecAuthHttpInterceptor(
                master_secret=read_private(self.secret), protected_methods={"/flwr.proto.Runtime/AcquireTask"}
            )
        )

    @contextlib.contextmanager
    def reached(self) -> Generator[None]:
        """Turn what HTTP and Flower raise into `Unreachable`; a refusal of the other side into RunError."""
        try:
            yield
        except http_errors() as error:
            response: Any = vars(error).get("response")
            if response is None or response.status_code >= 500:
                raise Unreachable(f"{self.address}: not reached ({error}); it is tried again.") from error
            raise RunError(
                f"{self.address}: refuses ({response.status_code}): the run or its task is over, or the secret is not "
                "the one of --superexec-auth-secret-file."
            ) from error
        except FedloomError:
            raise
        except Exception as error:  # objects that did not arrive, answers that are none: a foreign library's own errors
            raise Unreachable(f"{self.address}: {type(error).__name__} of Flower; it is tried again.") from error


class _Task:
    """A task that was taken, under its token; its bundle is left where it is."""

    def __init__(self, place: FlowerPlace, token: str) -> None:
        self._pb, self._place = _flwr("proto.runtime_pb2"), place
        self.client = place.client(_flwr("supercore.interceptors").RuntimeTokenHttpInterceptor(token))
        told = self.client.PullTaskInput(self._pb.PullTaskInputRequest())
        self.run, self.id, self.node = told.run.run_id, told.task_id, told.context.node_id

    def pulled(self, ids: Sequence[str] = ()) -> list[tuple[Any, bytes | None]]:
        """Return messages that have come, each with what it carries for us: their heads, to which one can reply."""
        found = self.client.PullMessages(self._pb.PullAppMessagesRequest(message_ids=ids))
        head = _flwr("common.serde").message_from_proto
        both = zip(found.messages_list, found.message_object_trees, strict=True)
        return [(head(message), self._carried(tree)) for message, tree in both]

    def _carried(self, tree: Any) -> bytes | None:
        objects, node = _flwr("supercore.inflatable.inflatable_protobuf_utils"), self._here()
        try:
            message = _flwr("supercore.inflatable.inflatable_utils").pull_and_inflate_object_from_tree(
                tree,
                objects.make_pull_object_fn_protobuf(self.client.PullObject, node, self.run),
                objects.make_confirm_message_received_fn_protobuf(self.client.ConfirmMessageReceived, node, self.run),
                return_type=_flwr("app").Message,
            )
        except http_errors():
            raise
        except Exception as error:  # a foreign library over what a stranger has sent
            _log.warning("Flower run %d: a message cannot be read (%s)", self.run, type(error).__name__)
            return None
        return _unpacked(message)

    def push(self, message: Any) -> str:
        """Send a message with all that belongs to it; return its name, "" where it was not taken."""
        tools, app = _flwr("supercore.inflatable.inflatable_object"), _flwr("app.message.message")
        vars(message.metadata)["_message_id"] = message.object_id
        head = _flwr("common.serde").message_to_proto(app.remove_content_from_message(message))
        with tools.no_object_id_recompute():
            sent = self.client.PushMessages(
                self._pb.PushAppMessagesRequest(
                    messages_list=[head], message_object_trees=[tools.get_object_tree(message)]
                )
            )
            _flwr("supercore.inflatable.inflatable_utils").push_objects(
                tools.get_all_nested_objects(message),
                _flwr("supercore.inflatable.inflatable_protobuf_utils").make_push_object_fn_protobuf(
                    self.client.PushObject, self._here(), run_id=self.run, session_id=sent.session_id
                ),
                object_ids_to_push=set(sent.objects_to_push),
            )
        return str(sent.message_ids[0])

    def _here(self) -> Any:
        return _flwr("proto.node_pb2").Node(node_id=self.node)

    def alive(self) -> None:
        """Give a sign of life, without which a task counts as dead after a minute."""
        self.client.SendTaskHeartbeat(self._pb.SendTaskHeartbeatRequest())

    def finish(self, details: str = "") -> None:
        """Say that the task is over, and why where it has failed."""
        status = _flwr("common.constant").SubStatus
        over = status.FAILED if details else status.COMPLETED
        try:
            self.client.PushTaskOutput(self._pb.PushTaskOutputRequest(sub_status=over, details=details[:400]))
        finally:
            self.client.close()


def _taken(place: FlowerPlace, executor: Any, *names: str) -> str:
    """Return the token of a task of one of these kinds, "" where there is none."""
    pb, kinds = _flwr("proto.runtime_pb2"), _flwr("supercore.constant").TaskType
    with place.reached():
        found = executor.AcquireTask(pb.AcquireTaskRequest(supported_task_types=[kinds[name] for name in names]))
    return str(found.token)


def _packed(data: bytes) -> Any:
    app = _flwr("app")
    array = app.Array(stype="raw", dtype="uint8", shape=(len(data),), data=data)
    return app.RecordDict({_RECORD: app.ArrayRecord({_ARRAY: array})})


def _unpacked(message: Any) -> bytes | None:
    """Return the bytes that a message carries for us; None where it carries none."""
    if not message.has_content():
        return None
    try:
        array = message.content[_RECORD][_ARRAY]
        raw = (array.stype, array.dtype) == ("raw", "uint8") and isinstance(array.data, bytes)
        return array.data if raw else None
    except (KeyError, TypeError, AttributeError):
        return None


# ------------------------------------------------------------------------------------------------------------- a node


class FlowerCalls:
    """The tasks of a SuperNode, as calls (`relay_link.py`)."""

    def __init__(self, place: FlowerPlace) -> None:
        self._place, self._executor = place, place.executor()
        self.where = place.address

    def close(self) -> None:
        """Take no more."""
        self._executor.close()

    def take(self, timeout_s: float) -> "_FlowerCall | None":
        """Return the next task's message, of whatever bundle; None where there is none in time."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if token := _taken(self._place, self._executor, "CLIENT_APP", "AGENT_APP"):
                return self._call(token)
            time.sleep(_LOOK_S)
        return None

    def _call(self, token: str) -> "_FlowerCall | None":
        with self._place.reached():
            task = _Task(self._place, token)
            messages = task.pulled()
            if not messages:
                task.finish("there is no message")
                return None
        return _FlowerCall(self._place, task, *messages[0])


class _FlowerCall:
    """A task of a SuperNode, answered once."""

    def __init__(self, place: FlowerPlace, task: _Task, head: Any, data: bytes | None) -> None:
        self._place, self._task, self._head = place, task, head
        self.origin, self.data = f"Flower run {task.run}", data

    def answer(self, data: bytes) -> None:
        """Send the answer."""
        self._finish(_flwr("app").Message(_packed(data), reply_to=self._head))

    def refuse(self, reason: str) -> None:
        """Send back why nothing is done."""
        codes = _flwr("common.constant").ErrorCode
        error = _flwr("app.error").Error(codes.CLIENT_APP_RAISED_EXCEPTION, f"refused: {reason[:400]}")
        self._finish(_flwr("app").Message(error, reply_to=self._head), reason)

    def _finish(self, reply: Any, details: str = "") -> None:
        try:
            with self._place.reached():
                self._task.push(reply)
                self._task.finish(details)
        except RunError as error:  # the run is over, or the task was held too long: what counts comes with the next one
            raise Unreachable(str(error)) from error


# ----------------------------------------------------------------------------------------------------------- a server


class FlowerPost:
    """The messages of a SuperLink's run, as a server's post (`relay_server.py`)."""

    def __init__(self, place: FlowerPlace, task: _Task) -> None:
        self._place, self._task = place, task
        self._alive_s = time.monotonic()
        identity = _flwr("supercore.task_identity").TaskIdentity
        identity.task_id, identity.run_id, identity.node_id = task.id, task.run, task.node

    def nodes(self) -> Iterable[int]:
        """Return the SuperNodes that are there."""
        pb = _flwr("proto.runtime_pb2")
        with self._place.reached():
            if time.monotonic() - self._alive_s > _ALIVE_S:
                self._alive_s = time.monotonic()
                self._task.alive()
            return [node.node_id for node in self._task.client.GetNodes(pb.GetNodesRequest()).nodes]

    def send(self, node: int, data: bytes) -> str:
        """Send a message and return its name."""
        with self._place.reached():
            return self._task.push(_flwr("app").Message(_packed(data), node, "query"))

    def replies(self, calls: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return what has come in reply to these messages."""
        with self._place.reached():
            found = self._task.pulled(calls)
        return {head.metadata.reply_to_message_id: data for head, data in found}


@contextlib.contextmanager
def serverapp_task(place: FlowerPlace) -> Generator[FlowerPost]:
    """Take the task that `flwr run` has made at a SuperLink, once there is one, and hold it while the block runs."""
    executor, told = place.executor(), False
    while not (token := _taken(place, executor, "SERVER_APP")):
        if not told:
            _log.warning("%s: no run of Flower yet; waiting for `flwr run`", place.address)
        told = True
        time.sleep(_LOOK_S)
    executor.close()
    with place.reached():
        task = _Task(place, token)
    _log.info("carried by Flower run %d", task.run)
    failed = "fedloom's server has stopped; `fedloom resume` goes on with it in a new Flower run"
    try:
        yield FlowerPost(place, task)
        failed = ""
    finally:
        try:
            with place.reached():
                task.finish(failed)
        except RunError as error:
            _log.warning("%s", error)
