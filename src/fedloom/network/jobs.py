"""Jobs and reports as data: numbers in a header, trees as safetensors, a row as its codec made it.

A job's body holds what all clients of a round are sent, so it is the same bytes for each of them. Its id is a hash of
all that it says: the same id is the same work, whoever asks again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.base.rows import is_finite
from fedloom.base.tree import Layout, Slots, Tree
from fedloom.contracts.federated import Plan
from fedloom.contracts.messages import Job, Local, Report
from fedloom.network.frames import number_from, number_to, text_in, whole_in
from fedloom.network.pieces import Piece, sha256

__all__ = [
    "JobFrame",
    "as_packet",
    "body_of",
    "layout_from",
    "layout_to",
    "local_of",
    "report_from",
    "report_to",
    "row_shape",
]

_PARAMS = "params"


@dataclass(frozen=True)
class JobFrame:
    """What a node is told of a job: everything but the bytes of its body."""

    run: str
    client: str
    round: int
    lr: float
    body: Piece
    phase: str = ""
    """Of an evaluation, which one; "" where a client is to train."""

    @classmethod
    def of(cls, run: str, job: Job, body: Piece) -> "JobFrame":
        """Return the frame of a job whose body is known."""
        return cls(run, job.client, job.round, job.lr, body)

    @cached_property
    def id(self) -> str:
        """SHA-256 over run, client, round, rate, body and phase."""
        said = [self.run, self.client, self.round, number_to(self.lr), self.body.digest, self.phase]
        return sha256(json.dumps(said).encode())

    def header(self) -> dict[str, Any]:
        """Return the frame as a header."""
        return {
            "kind": "job",
            "id": self.id,
            "run": self.run,
            "client": self.client,
            "round": self.round,
            "lr": number_to(self.lr),
            "phase": self.phase,
            "digest": self.body.digest,
            "size": self.body.size,
        }

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "JobFrame":
        """Return the job of a header; DataError where it is none, or its id is not that of what it says."""
        found = cls(
            text_in(header, "run"),
            text_in(header, "client"),
            whole_in(header, "round"),
            number_from(header, "lr"),
            Piece(text_in(header, "digest", longest=64), whole_in(header, "size")),
            text_in(header, "phase", longest=40),
        )
        if text_in(header, "id", longest=64) != found.id:
            raise DataError("job: its id is not the hash of what it says.")
        return found


def body_of(local: Local) -> bytes:
    """Return what all clients of a round are sent: the parameters and the server's slots."""
    shared = {f"shared/{slot}/{name}": tensor for slot, tree in local.shared.items() for name, tensor in tree.items()}
    params = {f"{_PARAMS}/{name}": tensor for name, tensor in local.anchor.items()}
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in (params | shared).items()})


def local_of(body: bytes | bytearray, size: int, memory: Slots) -> Local:
    """Return what a client knows while it trains; DataError where the body holds anything but rows [size], finite."""
    try:
        found: Tree = load(bytes(body))
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"job: its body is no safetensors ({error}).") from error
    params: Tree = {}
    shared: Slots = {}
    for name, tensor in found.items():
        match name.split("/"):
            case ["params", key]:
                params[key] = tensor
            case ["shared", slot, key]:
                shared.setdefault(slot, {})[key] = tensor
            case _:
                raise DataError(f"job: its body holds '{name[:80]}', allowed are parameters and shared slots.")
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != (size,) or not is_finite(tensor):
            raise DataError(
                f"job: '{name[:80]}' has shape {tuple(tensor.shape)} of {tensor.dtype}, allowed are {size} finite "
                "numbers of float32."
            )
    if set(params) != {""}:
        raise DataError("job: its body holds no parameters.")
    return Local(params, shared, memory)


def row_shape(plan: Plan, params_P: Tensor) -> tuple[Layout, int]:
    """Return the layout of what a client sends in a round, and the bytes of it that leave, from a row of zeros."""
    params = {"": torch.zeros_like(params_P)}
    local = Local(params, plan.rule.init_shared(params), plan.rule.init_memory(params))
    upload, _ = plan.rule.finish(params, local, steps=1, lr=1.0)
    layout = Layout.of(upload)
    if not layout.size:
        return layout, 0
    masked = plan.aggregator.upload_bytes(layout.size)
    return layout, masked or len(plan.codec.encode(torch.zeros(layout.size)))


def layout_to(layout: Layout) -> list[list[Any]]:
    """Return a layout as JSON values."""
    return [[slot, name, list(shape)] for slot, name, shape in layout.entries]


def layout_from(values: Any) -> Layout:
    """Return the layout that JSON values stand for; DataError for anything else."""
    try:
        entries = tuple((slot, name, tuple(shape)) for slot, name, shape in values)
    except (TypeError, ValueError) as error:
        raise DataError("layout: found no list of slot, name and shape.") from error
    for slot, name, shape in entries:
        fits = isinstance(slot, str) and isinstance(name, str) and len(shape) <= 8
        if not fits or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            raise DataError("layout: found no list of slot, name and shape.")
    return Layout(entries)


def report_to(report: Report, job: str) -> dict[str, Any]:
    """Return the header of a report; its packet travels behind it. A client's memory stays where it is."""
    packet = Piece.of(bytes(report.packet.numpy().tobytes()))
    own = {} if report.own_seen is None else {"own_seen": report.own_seen}
    return own | {
        "kind": "report",
        "job": job,
        "client": report.client,
        "layout": layout_to(report.layout),
        "weight": number_to(report.weight),
        "n_examples": report.n_examples,
        "samples_seen": report.samples_seen,
        "loss_total": number_to(report.loss.total),
        "loss_weight": number_to(report.loss.weight),
        "steps": report.steps,
        "digest": packet.digest,
        "size": packet.size,
    }


def report_from(header: Mapping[str, Any], packet: bytes | bytearray) -> Report:
    """Return the report that a header and a packet stand for; DataError for anything else."""
    return Report(
        client=text_in(header, "client"),
        packet=as_packet(packet),
        layout=layout_from(header.get("layout")),
        weight=number_from(header, "weight"),
        n_examples=whole_in(header, "n_examples"),
        samples_seen=whole_in(header, "samples_seen"),
        loss=Mean(number_from(header, "loss_total"), number_from(header, "loss_weight")),
        memory={},
        steps=whole_in(header, "steps"),
        own_seen=whole_in(header, "own_seen") if "own_seen" in header else None,
    )


def as_packet(packet: bytes | bytearray) -> Tensor:
    """Return bytes as a packet, uint8; a buffer that may change is taken as it is."""
    if not packet:
        return torch.zeros(0, dtype=torch.uint8)
    return torch.frombuffer(packet if isinstance(packet, bytearray) else bytearray(packet), dtype=torch.uint8)
