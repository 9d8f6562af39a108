"""What a node is told by its owner: `node.toml` in its folder, with keys, policy, approvals and ledger beside it.

name = "north"
server = "study"                      # the server's name in its certificate
address = "study.example:7443"        # where it listens: the one outgoing port
relay = "gate"                        # where something ends TLS on the way: its name in its certificate

[model]
path = "/models/llama"

[data.north]                          # a table for each client, as a run file has it
name = "file"
path = "/data/records.jsonl"
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedloom.base import config
from fedloom.base.errors import ConfigError, MissingFileError
from fedloom.base.files import disk_errors, write_atomic
from fedloom.base.machine import Device
from fedloom.base.plugin import AtLeast, check_ranges, default
from fedloom.contracts.data import Source
from fedloom.contracts.federated import Engine
from fedloom.network.channel import Link, is_loopback
from fedloom.network.keys import Keys, check, identity_of, read_private, sign_bytes, verify_bytes, write_private
from fedloom.network.manifest import Manifest, OwnSettings
from fedloom.network.node_ledger import NodeLedger
from fedloom.network.policy import Policy, read_policy

__all__ = ["ModelPlace", "NodeFile", "NodeFolder"]


@dataclass(frozen=True, kw_only=True)
class ModelPlace:
    """Where a node has its model."""

    path: str = ""
    """Folder of the base; left out: the embedded model."""
    adapter: str = ""
    """Folder of an adapter to start from."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numbers of the base weights."""


@dataclass(frozen=True, kw_only=True)
class NodeFile:
    """A node's own settings."""

    name: str
    """The node's name in its certificate."""
    server: str
    """The server's name in its certificate."""
    address: str
    """Host and port at which the server, or the relay before it, listens."""
    sealed: bool = False
    """Whether only the two ends read what is said, whatever ends TLS on the way."""
    relay: str = ""
    """Name, in its certificate of this federation, of what ends TLS on the way; all is sealed then."""
    device: Device = "auto"
    """What trains."""
    threads: AtLeast = 1
    """Threads on the CPU."""
    engine: Engine = field(default_factory=default(Engine, "sequential"))
    """How the node's clients are trained."""
    model: ModelPlace = field(default_factory=ModelPlace)
    data: Mapping[str, Source]
    """The data of each client that the node holds."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.data:
            raise ConfigError("data: found none; give a table [data.CLIENT] for each client of this node.")

    def own(self, client: str) -> OwnSettings:
        """Return what a run takes from here for a client."""
        return OwnSettings(
            data=self.data[client],
            engine=self.engine,
            model_path=self.model.path,
            adapter=self.model.adapter,
            dtype=self.model.dtype,
            device=self.device,
            threads=self.threads,
        )


@dataclass(frozen=True)
class NodeFolder:
    """A node's folder."""

    path: Path

    @property
    def file(self) -> NodeFile:
        """The node's settings."""
        return config.build(NodeFile, config.read_toml(self.path / "node.toml"))

    @property
    def policy(self) -> Policy:
        """What the node's owner allows, read anew each time: it may be changed while the node runs."""
        return read_policy(self.path / "policy.toml")

    @property
    def ledger(self) -> NodeLedger:
        """The node's ledger."""
        return NodeLedger(self.path / "ledger.jsonl")

    @property
    def key(self) -> Path:
        """The node's private key."""
        return self.path / "node.key"

    def link(self) -> Link:
        """Return a connection to the server, as the node's settings have it."""
        file = self.file
        return Link(file.address, file.server, self.keys(), file.name, sealed=file.sealed, relay=file.relay)

    def secret(self) -> str:
        """Return what this node alone knows, for draws that nobody may draw again; made when it is first asked for."""
        path = self.path / "secret"
        if not path.is_file():
            write_private(path, os.urandom(32).hex().encode())
        return read_private(path).decode()

    def keys(self) -> Keys | None:
        """Return the node's certificate with its key; None on loopback without one. Refused where it is not valid."""
        file = self.file
        if not (self.path / "node.pem").is_file() and is_loopback(file.address):
            return None
        certificate, authority = self._text("node.pem"), self._text("ca.pem")
        who = check(certificate, authority, "node")
        if who.name != file.name:
            raise ConfigError(f"{self.path / 'node.pem'}: names node '{who.name}', node.toml says '{file.name}'.")
        return Keys(certificate, read_private(self.key), authority)

    def _text(self, name: str) -> str:
        path = self.path / name
        if not path.is_file():
            raise MissingFileError(
                f"{path}: missing; the federation's authority sends it after `fedloom node request`."
            )
        return path.read_text(encoding="utf-8")

    # ---------------------------------------------------------------------------------------------------- approvals

    def waiting(self) -> list[Path]:
        """Return the manifests that wait for approval, oldest first."""
        return sorted((self.path / "waiting").glob("*.json"), key=lambda path: path.stat().st_mtime)

    def wait_for_approval(self, manifest: Manifest) -> bool:
        """Put a manifest where its owner finds it; return whether it was not there."""
        path = self.path / "waiting" / f"{manifest.digest}.json"
        if path.is_file():
            return False
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, manifest.text)
        return True

    def approve(self, manifest: Manifest) -> None:
        """Keep a manifest as approved, signed with the node's key, and take it from those that wait."""
        folder = self.path / "approved"
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        signature = sign_bytes(self.key, _approval(manifest.digest)) if self.key.is_file() else b""
        write_atomic(folder / f"{manifest.digest}.json", manifest.text)
        write_atomic(folder / f"{manifest.digest}.signature", signature.hex() + "\n")
        (self.path / "waiting" / f"{manifest.digest}.json").unlink(missing_ok=True)
        self.ledger.append("approved", manifest=manifest.digest)

    def revoke_approvals(self) -> int:
        """Take back every approval, at once, and return how many there were."""
        found = list((self.path / "approved").glob("*.json"))
        for path in found:
            path.with_suffix(".signature").unlink(missing_ok=True)
            path.unlink()
        self.ledger.append("left", approvals=len(found))
        return len(found)

    def delete_journals(self) -> None:
        """Delete what was answered and remembered of all runs; what was spent of privacy stays counted."""
        for run in (self.path / "runs").glob("*"):
            for name in ("answers", "memory", "inbox"):
                shutil.rmtree(run / name, ignore_errors=True)
            (run / "anchor.safetensors").unlink(missing_ok=True)
        self.ledger.append("deleted", what="answers and memories of all runs")

    def is_approved(self, digest: str) -> bool:
        """Return whether a manifest was approved with this node's key; the file alone does not do."""
        path = self.path / "approved" / f"{digest}.signature"
        if not path.is_file() or not path.with_suffix(".json").is_file():
            return False
        if Manifest.parsed(path.with_suffix(".json").read_text(encoding="utf-8")).digest != digest:
            return False
        if not (self.path / "node.pem").is_file():
            return True
        try:
            signature = bytes.fromhex(path.read_text(encoding="utf-8").strip())
        except ValueError:
            return False
        return verify_bytes(self._text("node.pem"), _approval(digest), signature)

    def last_approved(self) -> Manifest | None:
        """Return the manifest that was approved last."""
        found = sorted((self.path / "approved").glob("*.json"), key=lambda path: path.stat().st_mtime)
        return Manifest.parsed(found[-1].read_text(encoding="utf-8")) if found else None

    def check_server(self, certificate: str, signature: str, said: bytes) -> None:
        """Refuse a server that the policy does not name, or that has not signed what it said: ConfigError."""
        keys, servers = self.keys(), self.policy.servers
        if keys is None:
            if "loopback" not in servers:
                raise ConfigError("servers: found a server on loopback without a certificate, not in the policy.")
            return
        who = check(certificate, keys.authority, "server")
        if who.fingerprint not in servers:
            raise ConfigError(
                f"servers: found server '{who.name}' with fingerprint {who.fingerprint}, not in the policy."
            )
        try:
            signed = verify_bytes(certificate, said, bytes.fromhex(signature))
        except ValueError:
            signed = False
        if not signed or identity_of(certificate).name != self.file.server:
            raise ConfigError(f"server '{who.name}': has not signed what it says, or is not '{self.file.server}'.")


def _approval(digest: str) -> bytes:
    return f"fedloom approved {digest}".encode()
